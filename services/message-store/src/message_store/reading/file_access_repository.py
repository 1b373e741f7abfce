"""The SQL behind a download: whether a message that somebody may see carries a file."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# A recalled message has no row in message_files; the two people of a 1:1 conversation are its members.
_MAY_READ = text("""
    SELECT EXISTS (
        SELECT FROM message_files JOIN messages USING (seq) JOIN members USING (conversation_id)
        WHERE file_id = :file_id AND user_id = :user_id AND recalled_at IS NULL
            AND seq >= joined_seq AND seq <= coalesce(left_seq, 9223372036854775807))""")


class FileAccess:
    """Who may download a file because of a message, on the session of a question."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def may_read_file(self, file_id: str, user_id: str) -> bool:
        """Tell whether a message that is not recalled, and that the user (normalised) may see, carries the file."""
        return bool(await self._session.scalar(_MAY_READ, {"file_id": file_id, "user_id": user_id}))
