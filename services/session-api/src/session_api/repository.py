"""All SQL of sessions and their subscribers."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from session_api.models import Session, SessionTable, Subscriber, User

_TEXTS = ARRAY(sa.Text)
_STILL_IN = col(Subscriber.left_at).is_(None)

_SESSIONS, _SUBSCRIBERS = (SessionTable.metadata.tables[one.__tablename__] for one in (Session, Subscriber))

_COLUMNS = ("session_id", "session_name", "session_type", "creator", "version", "changed_by", "created_at")

_PEOPLE = (
    sa.func.unnest(sa.bindparam("ids", type_=_TEXTS))
    .table_valued("user_id", with_ordinality="position", name="given")
    .render_derived()
)

_ADD_SUBSCRIBERS = sa.insert(_SUBSCRIBERS).from_select(
    ["session_id", "user_id", "added_version", "position", "joined_at"],
    sa.select(
        sa.bindparam("session_id", type_=sa.Text),
        _PEOPLE.c.user_id,
        sa.bindparam("added_version", type_=sa.Integer),
        sa.cast(_PEOPLE.c.position, sa.Integer),
        sa.bindparam("joined_at", type_=sa.BigInteger),
    ),
)

# One statement: the session's row, then its people.
_ADD = _ADD_SUBSCRIBERS.add_cte(
    sa.insert(_SESSIONS).values({name: sa.bindparam(name) for name in _COLUMNS}).cte("new_session")
)


class SessionRepository:
    """Questions about sessions, in the caller's transaction; lists travel as one array, however long."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, new: Session, ids: Sequence[str]) -> None:
        """Insert a new session and its subscribers, keeping their order, in one statement."""
        people = {"ids": list(ids), "added_version": new.version, "joined_at": new.created_at}
        await self._session.execute(_ADD, new.model_dump(include={*_COLUMNS}) | people)

    async def lock(self, session_id: str, *, deleted: bool = False) -> Session | None:
        """Return a session with its row locked: others who would change it wait for our commit.

        A deleted one only where `deleted` says so.
        """
        question = sa.select(Session).where(col(Session.session_id) == session_id)
        if not deleted:
            question = question.where(col(Session.deleted_at).is_(None))
        return await self._session.scalar(question.with_for_update(), execution_options={"populate_existing": True})

    async def find(self, session_id: str) -> Session | None:
        """Return a session, deleted or not."""
        return await self._session.get(Session, session_id)

    async def subscribers(self, session: Session) -> list[str]:
        """Return who is in a session at the version it was read, in the order they came.

        Asked by version, because another transaction may have committed the next one since the session was read.
        """
        left_later = col(Subscriber.removed_version) > session.version
        question = (
            sa.select(col(Subscriber.user_id))
            .where(col(Subscriber.session_id) == session.session_id)
            .where(col(Subscriber.added_version) <= session.version, _STILL_IN | left_later)
            .order_by(col(Subscriber.added_version), col(Subscriber.position))
        )
        return list(await self._session.scalars(question))

    async def is_in(self, session_id: str, user_id: str) -> bool:
        """Tell whether a person is in a session now."""
        is_he = (col(Subscriber.session_id) == session_id) & (col(Subscriber.user_id) == user_id)
        return bool(await self._session.scalar(sa.select(sa.exists().where(is_he, _STILL_IN))))

    async def people(self, session_id: str, after: tuple[int, int], limit: int) -> list[tuple[Subscriber, str]]:
        """Return up to `limit` who are in a session, with their names, in the order they came, from after a place."""
        place = (col(Subscriber.added_version), col(Subscriber.position))
        question = (
            sa.select(Subscriber, col(User.name))
            .join(User, col(User.user_id) == col(Subscriber.user_id))
            .where(col(Subscriber.session_id) == session_id, _STILL_IN, sa.tuple_(*place) > after)
            .order_by(*place)
            .limit(limit)
        )
        return [(subscriber, name) for subscriber, name in await self._session.execute(question)]

    async def add_subscribers(self, session_id: str, ids: Sequence[str], version: int, at: int) -> None:
        """Open a membership period for each of `ids`, keeping their order, in one statement."""
        people = {"session_id": session_id, "ids": list(ids), "added_version": version, "joined_at": at}
        await self._session.execute(_ADD_SUBSCRIBERS, people)

    async def remove_subscribers(self, session_id: str, ids: Sequence[str], version: int, at: int) -> None:
        """End the open membership period of each of `ids`, in one statement; the period itself is kept."""
        is_them = col(Subscriber.user_id) == sa.any_(sa.bindparam("ids", list(ids), _TEXTS))
        await self._session.execute(
            sa.update(Subscriber)
            .where(col(Subscriber.session_id) == session_id, is_them, _STILL_IN)
            .values(removed_version=version, left_at=at)
            .execution_options(synchronize_session=False)
        )

    async def retract(self, session_id: str, version: int) -> None:
        """Undo what a version did to the membership periods: drop those it opened, and open again those it ended.

        A person who was added again since then keeps the newer period.
        """
        is_here = col(Subscriber.session_id) == session_id
        newer = sa.alias(sa.inspect(Subscriber).local_table)
        is_back = sa.exists().where(
            newer.c.session_id == session_id, newer.c.user_id == col(Subscriber.user_id), newer.c.left_at.is_(None)
        )
        await self._session.execute(sa.delete(Subscriber).where(is_here, col(Subscriber.added_version) == version))
        await self._session.execute(
            sa.update(Subscriber)
            .where(is_here, col(Subscriber.removed_version) == version, ~is_back)
            .values(removed_version=None, left_at=None)
            .execution_options(synchronize_session=False)
        )

    async def of_user(self, user_id: str, before: tuple[int, str] | None, limit: int) -> Sequence[Session]:
        """Return up to `limit` sessions a person is in, newest first, from before a place (created_at, session_id)."""
        place = sa.tuple_(col(Session.created_at), col(Session.session_id))
        question = (
            sa.select(Session)
            .join(Subscriber, col(Subscriber.session_id) == col(Session.session_id))
            .where(col(Subscriber.user_id) == user_id, _STILL_IN, col(Session.deleted_at).is_(None))
            .order_by(col(Session.created_at).desc(), col(Session.session_id).desc())
            .limit(limit)
        )
        if before is not None:
            question = question.where(place < before)
        return (await self._session.scalars(question)).all()
