"""Who may read a file: its owner, and whoever may see a message that carries it."""

from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime

from tlim_protocol.errors import ErrorCode, TlimError

from file_api.errors import Quarantined
from file_api.files import Scan, StoredFile, is_file_id
from file_api.repository import Transaction

SeesMessageWith = Callable[[str, str], Awaitable[bool]]
"""Takes file id and user id; tells whether the user may see a message that carries the file; raises Unavailable."""


class Access:
    """The rules of reading. Nothing is kept here: message-store knows who is in which group and what was recalled."""

    def __init__(self, transaction: Transaction, sees_message_with: SeesMessageWith) -> None:
        self._transaction = transaction
        self._sees_message_with = sees_message_with

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
            if file is not None and file.owner_id == user_id:
                return file
            # Asked for unknown files too: neither the time taken nor an outage tells them from foreign ones.
            if await self._sees_message_with(file_id, user_id) and file is not None:
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
