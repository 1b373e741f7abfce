"""The accounts of the XMPP server, through the commands that mod_tlim_accounts adds to ejabberd's API."""

import json
from collections.abc import Iterator
from typing import NamedTuple, cast

from tlim_admin.backup.manifest import BackupError
from tlim_admin.http import Answer
from tlim_admin.settings import AccountsSettings

PAGE = 5_000
_TIMEOUT_S = 60.0
"""ejabberd sorts all names for each page: with 100,000 of them that takes seconds."""


class Account(NamedTuple):
    """An account: the name before the @, and what the server keeps of its password, in the words of the module."""

    user: str
    credential: str


class Accounts:
    """The API of one ejabberd."""

    def __init__(self, url: str, token: str, domain: str) -> None:
        self._url, self._domain = url.rstrip("/"), domain
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}

    @classmethod
    def of(cls, settings: AccountsSettings) -> "Accounts | None":
        """Return the API that the settings name; None if the accounts are kept elsewhere."""
        if settings.xmpp_admin_url is None or settings.xmpp_admin_token is None:
            return None
        return cls(settings.xmpp_admin_url, settings.xmpp_admin_token.get_secret_value(), settings.xmpp_domain)

    def all(self) -> Iterator[Account]:
        """Give all accounts, in the order of their names. Raises BackupError."""
        last = ""
        while True:
            page = cast("list[dict[str, str]]", self._call("tlim_accounts", after=last, limit=PAGE))
            yield from (Account(one["user"], one["credential"]) for one in page)
            if len(page) < PAGE:
                return
            last = page[-1]["user"]

    def restore(self, account: Account) -> None:
        """Make an account; one that is there must be the same. Raises BackupError."""
        if self._call("tlim_restore_account", user=account.user, credential=account.credential) != 0:
            raise BackupError(f"the XMPP server has an account {account.user} with another password, or refuses it")

    def remove(self, user: str) -> None:
        """Remove an account with its contacts, and end its sessions; without an account do nothing. Raises BackupError.

        Removed first, so that nobody logs in anew in between.
        """
        self._call("unregister", user=user)
        self._call("kick_user", user=user)

    def contacts(self, user: str) -> list[dict[str, object]]:
        """Return the contacts of an account, as the server tells them. Raises BackupError."""
        return cast("list[dict[str, object]]", self._call("get_roster", user=user))

    def _call(self, command: str, **arguments: object) -> object:
        body = json.dumps({**arguments, "host": self._domain}).encode()
        try:
            answer = Answer(f"{self._url}/{command}", self._headers, body, _TIMEOUT_S)
            if answer.status == 200:
                return cast("object", json.loads(answer.body))
        except (OSError, ValueError) as error:
            raise BackupError(f"the XMPP server's API: {error or type(error).__name__}") from None
        said = answer.body[:300].decode(errors="replace").strip()
        raise BackupError(f"the XMPP server answers {command} with {answer.status} {said}")


def line_of(account: Account) -> str:
    """Return an account as a line of the backup."""
    return json.dumps(account._asdict(), ensure_ascii=False) + "\n"


def read_line(line: str) -> Account:
    """Return the account in a line of a backup."""
    return Account(**json.loads(line))
