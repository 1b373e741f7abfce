"""The SQL of one question: which messages have been recalled."""

from collections.abc import Collection, Sequence

from sqlalchemy import BigInteger
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from tlim_runtime.tables import any_of

from message_store.models import Message


class Recalls:
    """Recalled messages, on the session of a request."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def among(self, seqs: Collection[int]) -> Sequence[int]:
        """Return those of `seqs` that are recalled, rising."""
        is_one = col(Message.seq) == any_of(seqs, BigInteger)
        query = select(Message.seq).where(is_one, col(Message.recalled_at).is_not(None))
        return (await self._session.scalars(query.order_by(col(Message.seq)))).all()
