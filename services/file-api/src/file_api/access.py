"""Who may read a file: its owner, and everybody to whom a reader of it has sent it."""

from collections.abc import Awaitable, Callable, Sequence

from tlim_protocol.errors import ErrorCode, TlimError

from file_api.files import Share, StoredFile, is_file_id
from file_api.repository import Transaction
from file_api.repository.files import FileRepository

MAX_QUESTIONS = 32
"""A file that was forwarded from hand to hand more often, none of which we heard of, has to be sent again."""

AskSenders = Callable[[str, str], Awaitable[Sequence[str]]]
"""Takes file id and user id; returns who sent the file to the user; raises Unavailable when nobody can say."""


class Access:
    """The rules of reading, fed by stored messages; what was missed is asked for before anybody is refused."""

    def __init__(self, transaction: Transaction, ask_senders: AskSenders) -> None:
        self._transaction = transaction
        self._ask_senders = ask_senders

    async def readable(self, file_id: str, user_id: str) -> StoredFile:
        """Return a file that the user may read.

        Raises TlimError FILE_UNKNOWN, the same for a file that does not exist and for one that is not his; Unavailable
        when it cannot be found out, never a false refusal.
        """
        if is_file_id(file_id):
            async with self._transaction() as tables:
                file = await tables.files.find(file_id)
                allowed = file is not None and await _is_reader(tables.files, file, user_id)
            if file is None:
                # Asked for nothing, so that neither the time taken nor an outage tells unknown files from foreign ones.
                await self._ask_senders(file_id, user_id)
            elif allowed or await self._learn(file, user_id, set()):
                return file
        raise TlimError(ErrorCode.FILE_UNKNOWN, "there is no such file for you", field="file_id")

    async def may_read(self, file_id: str, user_id: str) -> bool:
        """Tell whether the user may read the file; raises Unavailable like `readable`."""
        try:
            await self.readable(file_id, user_id)
        except TlimError:
            return False
        return True

    async def share(self, shares: Sequence[Share]) -> None:
        """Let the recipients of stored messages read, in the order of the messages, in one transaction.

        A sender who may not read a file himself gives nobody anything; repeating it changes nothing.
        """
        async with self._transaction() as tables:
            owners = await tables.files.owners({share.file_id for share in shares if is_file_id(share.file_id)})
            readers = set(owners.items())
            readers |= await tables.files.granted({(share.file_id, share.sender) for share in shares})
            given = []
            for share in shares:
                if (share.file_id, share.sender) in readers:
                    received = [(share.file_id, user_id) for user_id in share.recipients]
                    readers.update(received)  # he may have sent it on later in this very batch
                    given.extend(received)
            if given:
                await tables.files.grant(given)

    async def _learn(self, file: StoredFile, user_id: str, asked: set[str]) -> bool:
        """Ask who sent the file to the user, and on from them to a reader; the grants on the way are recorded."""
        asked.add(user_id)
        for sender in await self._ask_senders(file.file_id, user_id):
            async with self._transaction() as tables:
                is_reader = await _is_reader(tables.files, file, sender)
            if not is_reader and sender not in asked and len(asked) < MAX_QUESTIONS:
                is_reader = await self._learn(file, sender, asked)
            if is_reader:
                async with self._transaction() as tables:
                    await tables.files.grant([(file.file_id, user_id)])
                return True
        return False


async def _is_reader(files: FileRepository, file: StoredFile, user_id: str) -> bool:
    return user_id == file.owner_id or bool(await files.granted([(file.file_id, user_id)]))
