"""The SQL behind a download: whether the user may see a message with the file, and whether all are recalled."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from tlim_protocol.events import FileVerdict

# The two people of a 1:1 conversation are its members, too. `recalled` means: messages carried the file, and all of
# these are recalled. PostgreSQL stops at the first message that is not.
_VERDICT = text("""
    SELECT
        EXISTS (
            SELECT FROM message_files JOIN messages USING (seq) JOIN members USING (conversation_id)
            WHERE file_id = :file_id AND user_id = :user_id AND recalled_at IS NULL
                AND seq >= joined_seq AND seq <= coalesce(left_seq, 9223372036854775807)) AS allowed,
        NOT EXISTS (
            SELECT FROM message_files JOIN messages USING (seq) WHERE file_id = :file_id AND recalled_at IS NULL)
        AND EXISTS (
            SELECT FROM message_files JOIN messages USING (seq) WHERE file_id = :file_id) AS recalled""")

VERDICT_MS = 2_000
"""How long messages with a file are looked through: the asker waits no longer. Usually that takes milliseconds. But if
a file is in very many messages and the user sees none of them, all are looked at."""


class FileAccess:
    """Who may download a file because of a message, on the database session of a question."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def verdict(self, file_id: str, user_id: str) -> FileVerdict:
        """Tell whether the user (normalised) sees a message with the file, and whether all with it are recalled.

        Statements of this transaction may take VERDICT_MS from now on. If one takes longer: DatabaseUnavailable.
        """
        await self._session.execute(text(f"SET LOCAL statement_timeout = {VERDICT_MS}"))
        found = await self._session.execute(_VERDICT, {"file_id": file_id, "user_id": user_id})
        allowed, recalled = found.one()
        return FileVerdict(allowed=allowed, recalled=recalled)
