"""The right to read a file: users who may see a message with it, and its owner unless all of these were recalled."""

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
    """The rules of reading. Nothing is kept here: message-store knows the members of groups and what was recalled."""

    def __init__(self, transaction: Transaction, verdict: Verdict) -> None:
        self._transaction = transaction
        self._verdict = verdict

    async def readable(self, file_id: str, user_id: str) -> StoredFile:
        """Return a file whose bytes the user may read now.

        Raises what `known` raises; Quarantined until it is scanned; TlimError FILE_UNKNOWN when a virus was found.
        """
        file = await self.known(file_id, user_id)
        if file.blob.scan == Scan.WAITING:
            raise Quarantined
        if file.blob.scan == Scan.INFECTED:
            raise TlimError(ErrorCode.FILE_UNKNOWN, "a virus was found in the file, it was removed", field="file_id")
        return file

    async def known(self, file_id: str, user_id: str) -> StoredFile:
        """Return a file that the user may know about.

        Raises TlimError FILE_UNKNOWN. A file that does not exist and a file of strangers get the same answer. Raises
        Unavailable when message-store does not answer: never a false refusal.
        """
        if is_file_id(file_id):
            async with self._transaction() as tables:
                file = await tables.files.find(file_id)
            is_own = file is not None and file.owner_id == user_id
            if file is not None and is_own and not file.sent:
                return file
            # We ask for unknown files too, so that neither the time taken nor an outage tells them from foreign ones.
            verdict = await self._verdict(file_id, user_id)
            if file is not None and (verdict.allowed or (is_own and not verdict.recalled)):
                return file
        raise TlimError(ErrorCode.FILE_UNKNOWN, "there is no such file for you", field="file_id")

    async def owners(self, file_ids: Collection[str]) -> dict[str, str]:
        """Return the uploader of each of these files, which somebody is about to send. Unknown files are left out.

        The files count as sent from now on, and are no orphans any more. Raises Unavailable.
        """
        known = {file_id for file_id in file_ids if is_file_id(file_id)}
        if not known:
            return {}
        async with self._transaction() as tables:
            return await tables.files.note_sent(known, datetime.now(UTC))
