"""All SQL of `Idempotency-Key`."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from session_api.models import IdempotencyKey, Session

_FORGOTTEN_AT_ONCE = 100
"""Old keys of anybody that go whenever a new one comes: more than come, and few enough to take no time."""

_PLACE = (col(IdempotencyKey.user_id), col(IdempotencyKey.key))


class IdempotencyRepository:
    """Keys and what they made, in the caller's transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def lock(self, user_id: str, key: str) -> None:
        """Make others who come with a person's key wait until the transaction ends, and then see what it wrote."""
        number = sa.func.hashtextextended(f"idempotency:{user_id}:{key}", 0)
        await self._session.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))

    async def find(self, user_id: str, key: str, since: int) -> tuple[IdempotencyKey, Session] | None:
        """Return what a person's key made, where that was not before `since` (epoch ms)."""
        question = (
            sa.select(IdempotencyKey, Session)
            .join(Session, col(Session.session_id) == col(IdempotencyKey.session_id))
            .where(sa.tuple_(*_PLACE) == (user_id, key), col(IdempotencyKey.at) >= since)
        )
        found = (await self._session.execute(question)).one_or_none()
        return None if found is None else (found[0], found[1])

    async def keep(self, made: IdempotencyKey, since: int) -> None:
        """Write down what a key made, over what it made before `since`, and forget some keys that are as old."""
        row = made.model_dump()
        written = insert(IdempotencyKey).values(row).on_conflict_do_update(index_elements=_PLACE, set_=row)
        await self._session.execute(written)
        # After the write, and past locked rows: two that forget each other's old key never wait for each other.
        old = sa.select(*_PLACE).where(col(IdempotencyKey.at) < since).order_by(col(IdempotencyKey.at))
        some = old.limit(_FORGOTTEN_AT_ONCE).with_for_update(skip_locked=True)
        await self._session.execute(
            sa.delete(IdempotencyKey).where(sa.tuple_(*_PLACE).in_(some)).execution_options(synchronize_session=False)
        )
