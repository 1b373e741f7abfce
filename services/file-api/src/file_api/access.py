"""Who may read a file: whoever may see a message that carries it, and its owner unless all of them were recalled."""

from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime

from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import FileVerdict

from file_api.errors import Quarantined
from file_api.files import Scan, StoredFile, is_file_id
from file_api.repository import Transaction

Verdict = Callable[[str, str], Awaitable[FileVerdict]]
"""Takes file id and user id; asks message-store what messages say about the file and the user; raises Unavailable."""


class Access:
    """The rules of reading. Nothing is kept here: message-store knows who is in which group and what was recalled."""

    def __init__(self, transaction: Transaction, verdict: Verdict) -> None:
        self._transaction = transaction
        self._verdict = verdict

    async def readable(self, file_id: str, user_id: str) -> StoredFile:
        """Return a file whose bytes the user may read now.

        Raises what `known` raises; Quarantined while it is not scanned; TlimError FILE_UNKNOWN when a virus was found.
        """
        file = await self.known(file_id, user_id)
        if file.blob.scan == Scan.WAITING:
            raise Quarantined
        if file.blob.scan == Scan.INFECTED:
            raise TlimError(ErrorCode.FILE_UNKNOWN, "a virus was found in the file, it was removed", field="file_id")
        return file

    async def known(self, file_id: str, user_id: str) -> StoredFile:
        """Return a file of which the user may know.

        Raises TlimError FILE_UNKNOWN, the same for a file that does not exist and for one that is not his; Unavailable
        when it cannot be found out, never a false refusal.
        """
        if is_file_id(file_id):
            async with self._transaction() as tables:
                file = await tables.files.find(file_id)
            is_own = file is not None and file.owner_id == user_id
            if file is not None and is_own and not file.sent:
                return file
            # Asked for unknown files too: neither the time taken nor an outage tells them from foreign ones.
            verdict = await self._verdict(file_id, user_id)
            if file is not None and (verdict.allowed or (is_own and not verdict.recalled)):
                return file
        raise TlimError(ErrorCode.FILE_UNKNOWN, "there is no such file for you", field="file_id")

    async def owners(self, file_ids: Collection[str]) -> dict[str, str]:
        """Return who uploaded each of these files, which somebody is about to send; unknown ones are left out.

        They count as sent from now on: they are no orphans. Raises Unavailable.
        """
        known = {file_id for file_id in file_ids if is_file_id(file_id)}
        if not known:
            return {}
        async with self._transaction() as tables:
            return await tables.files.note_sent(known, datetime.now(UTC))
