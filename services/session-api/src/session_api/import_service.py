"""The rules of importing files of users: good rows take effect together, and every bad row is reported."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

from tlim_protocol.errors import ErrorCode, TlimError, quoted
from tlim_protocol.events import AuditAction
from tlim_protocol.names import checked_name
from tlim_runtime.errors import PayloadTooLarge

from session_api.audit import Admin, AuditService
from session_api.clock import Clock, now_ms
from session_api.errors import ImportRunningError
from session_api.passwords import MAX_PASSWORD, is_password
from session_api.user_files import Row, UserFile
from session_api.users_repository import UserRepository
from session_api.users_service import user_id
from session_api.xmpp_accounts import AccountOutcome, XmppAccounts

MAX_ACCOUNTS = 5_000
"""The most accounts in one import. The XMPP server hashes passwords slowly on purpose: about 100 accounts a second."""


class DirectoryTransaction(NamedTuple):
    """The directory and the audit log in one transaction."""

    users: UserRepository
    audit: AuditService


Begin = Callable[[], AbstractAsyncContextManager[DirectoryTransaction]]
"""Opens a transaction, which is committed at the end of the block."""

Alone = Callable[[], AbstractAsyncContextManager[bool]]
"""Gives True to one import at a time among all processes, and False to any other import."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A checked file: names by normalised id (None: not given), passwords, row numbers, and the refused rows."""

    names: Mapping[str, str | None]
    passwords: Mapping[str, str] = field(repr=False)
    numbers: Mapping[str, int]
    refused: Sequence[tuple[int, TlimError]]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The result of an import: numbers of users, and the rows that were left out, in their order."""

    created: int
    updated: int
    unchanged: int
    accounts_created: int
    accounts_changed: int
    refused: Sequence[tuple[int, TlimError]]
    ignored: Sequence[str]


def checked_file(file: UserFile) -> Checked:
    """Check every row by itself and against earlier rows; for a user with several rows, the first good one counts."""
    names: dict[str, str | None] = {}
    passwords: dict[str, str] = {}
    numbers: dict[str, int] = {}
    refused = list(file.refused)
    for row in file.rows:
        try:
            checked_id, name, password = _checked_row(row, numbers)
        except TlimError as error:
            refused.append((row.number, error))
            continue
        names[checked_id] = name
        numbers[checked_id] = row.number
        if password is not None:
            passwords[checked_id] = password
    return Checked(names, passwords, numbers, refused)


def _checked_row(row: Row, seen: Mapping[str, int]) -> tuple[str, str | None, str | None]:
    checked_id = user_id(row.text("user_id") or "")
    if checked_id in seen:
        detail = f"user_id {quoted(checked_id)} stands in row {seen[checked_id]} already"
        raise TlimError(ErrorCode.FIELD_INVALID, detail, field="user_id")
    name, password = row.text("name"), row.text("password")
    if password is not None and not is_password(password):
        detail = f"XMPP servers refuse the password: over {MAX_PASSWORD} characters, or one that SASLprep forbids"
        raise TlimError(ErrorCode.FIELD_INVALID, detail, field="password")
    return checked_id, None if name is None else checked_name(name, field="name"), password


class ImportService:
    """Imports files. It opens its own transactions, so that none is open while the XMPP server is asked."""

    def __init__(self, begin: Begin, alone: Alone, accounts: XmppAccounts | None, clock: Clock = now_ms) -> None:
        self._begin = begin
        self._alone = alone
        self._accounts = accounts
        self._clock = clock

    async def run(self, admin: Admin, file: UserFile, *, reset_passwords: bool) -> ImportReport:
        """Import the good rows of a file; the same file again changes nothing.

        XMPP accounts come first, after their own audit entries. If the XMPP server fails halfway, the directory is
        unchanged, and the same import continues where it stopped. Raises FIELD_INVALID when passwords are given but
        accounts are made elsewhere, PayloadTooLarge for over MAX_ACCOUNTS of them, ImportRunningError, XmppUnavailable.
        """
        self._check_passwords(file)
        checked = await asyncio.to_thread(checked_file, file)  # 50,000 rows take long, and other requests must not wait
        outcomes = await self._make_accounts(admin, checked.passwords, reset=reset_passwords)
        failed = {one: outcome for one, outcome in outcomes.items() if isinstance(outcome, TlimError)}
        names = {one: name for one, name in checked.names.items() if one not in failed}
        async with self._begin() as directory:
            created, updated = await directory.users.merge(names, self._clock())
            report = self._report(file, checked, outcomes, created=created, updated=updated)
            await _note(directory.audit, admin, report)
        return report

    def _report(
        self,
        file: UserFile,
        checked: Checked,
        outcomes: Mapping[str, AccountOutcome | TlimError],
        *,
        created: int,
        updated: int,
    ) -> ImportReport:
        failed = {one: outcome for one, outcome in outcomes.items() if isinstance(outcome, TlimError)}
        made = list(outcomes.values())
        refused = [*checked.refused, *((checked.numbers[one], error) for one, error in failed.items())]
        return ImportReport(
            created=created,
            updated=updated,
            unchanged=len(checked.names) - len(failed) - created - updated,
            accounts_created=made.count(AccountOutcome.CREATED),
            accounts_changed=made.count(AccountOutcome.CHANGED),
            refused=sorted(refused, key=lambda one: one[0]),
            ignored=file.ignored,
        )

    def _check_passwords(self, file: UserFile) -> None:
        if not file.has_passwords:
            return
        if self._accounts is None:
            detail = (
                "passwords are given, but XMPP accounts are not made here: leave them out, or set TLIM_XMPP_ADMIN_URL"
            )
            raise TlimError(ErrorCode.FIELD_INVALID, detail, field="password")
        if sum(bool(row.values.get("password")) for row in file.rows) > MAX_ACCOUNTS:
            raise PayloadTooLarge(f"an import makes at most {MAX_ACCOUNTS} accounts", field="password")

    async def _make_accounts(
        self, admin: Admin, passwords: Mapping[str, str], *, reset: bool
    ) -> Mapping[str, AccountOutcome | TlimError]:
        if self._accounts is None or not passwords:
            return {}
        async with self._alone() as is_alone:
            if not is_alone:
                raise ImportRunningError
            async with self._begin() as directory:  # committed first: no rollback undoes accounts
                if reset:
                    await directory.audit.note_each(admin, AuditAction.ACCOUNT_RESET, passwords)
                else:
                    await directory.audit.note(admin, AuditAction.ACCOUNTS_MAKE, detail={"accounts": len(passwords)})
            return await self._accounts.ensure(passwords, reset=reset)


async def _note(audit: AuditService, admin: Admin, report: ImportReport) -> None:
    numbers = ("created", "updated", "unchanged", "accounts_created", "accounts_changed")
    detail = {name: getattr(report, name) for name in numbers}
    await audit.note(admin, AuditAction.USERS_IMPORTED, detail={**detail, "invalid": len(report.refused)})
