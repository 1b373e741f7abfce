"""All SQL of the log of changes: the changes of all sessions, in the order of the commits."""

from collections.abc import AsyncGenerator, Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col
from tlim_protocol.events import SessionEvent
from tlim_protocol.subjects import session_event_id, subject_in
from tlim_runtime.tables import any_of

from session_api.edits import type_of_change
from session_api.models import OUTBOX, Session, SessionChange, SessionTable, Subscriber

_TEXTS = ARRAY(sa.Text)
_IN_ORDER = (col(Subscriber.added_version), col(Subscriber.position))

_Events = sa.Select[SessionChange, str, int, list[str], list[str], list[str]]

REVOKED = "revoked"
"""The key in a transaction's `info` for a change that takes rights away: its session id and version."""

IS_NEW = "is new"
"""The key in a transaction's `info` for a session that nobody can know yet."""

_READ_AHEAD = 8
"""Events in memory at a time: few, as events of 10,000 subscribers are large and a page ends after 2 MB."""

# Statements that each change executes are built once: SQLAlchemy takes longer for that than PostgreSQL for them.
_LOG = SessionTable.metadata.tables[SessionChange.__tablename__]

_LOCK = sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(SessionChange.__tablename__)))

_TOLD = ("session_id", "version", "session_name", "actor", "at", "deleted")
"""The columns that come from the event."""

_NEXT = sa.select(sa.func.coalesce(sa.func.max(_LOG.c.change), 0) + 1).scalar_subquery()

_GIVEN: dict[str, sa.ColumnElement[Any]] = {name: sa.bindparam(name) for name in _TOLD}

_NUMBER = sa.insert(_LOG).values({"change": _NEXT} | _GIVEN).returning(_LOG.c.change)


class ChangeRepository:
    """The log, in the caller's transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def tell(self, event: SessionEvent) -> None:
        """Give a change its number in the log and put its event into the outbox. Call it last in a transaction.

        From here to the commit all other changes wait. So numbers appear in order and without gaps, and events leave in
        the order of numbers. A database sequence could show 8 before 7 is committed.
        """
        await self._session.flush()  # what is not about the log is written before the others have to wait
        await self._session.execute(_LOCK)
        # A separate statement, so that it sees what the transaction before us has committed.
        change = await self._session.scalar(_NUMBER, event.model_dump(include={*_TOLD}))
        subject = subject_in(event.msg_type, event.session_id)
        message_id = session_event_id(event.session_id, event.version)
        payload = event.model_copy(update={"change": change}).to_bytes()
        await OUTBOX.add(self._session, subject, payload, message_id)
        if event.version == 1:
            self._session.info[IS_NEW] = True
        if event.removed or event.deleted:
            self._session.info[REVOKED] = (event.session_id, event.version)

    async def retract(self, session_id: str, version: int) -> tuple[str, bool]:
        """Rewrite a version so that it changed nothing.

        Return the session's name before it, and whether this version was the deletion. After a deletion, only takings
        back have made versions. They told of it as well, and this is taken out of them.
        """
        name_before = await self.name_at(session_id, version - 1)
        is_it = (col(SessionChange.session_id) == session_id) & (col(SessionChange.version) == version)
        deleted = (await self._session.scalars(sa.select(col(SessionChange.deleted)).where(is_it))).one()
        await self._session.execute(
            sa.update(SessionChange).where(is_it).values(session_name=name_before, deleted=False)
        )
        if deleted:
            await self._retract_deletion(session_id)
        return name_before, deleted

    async def _retract_deletion(self, session_id: str) -> None:
        told = (col(SessionChange.session_id) == session_id) & col(SessionChange.deleted)
        retold = sa.update(SessionChange).where(told).values(deleted=False).returning(col(SessionChange.version))
        for version in (await self._session.scalars(retold)).all():
            await OUTBOX.withdraw(self._session, session_event_id(session_id, version))

    async def name_at(self, session_id: str, version: int) -> str:
        """Return what a session was called at one of its versions."""
        is_it = (col(SessionChange.session_id) == session_id) & (col(SessionChange.version) == version)
        return (await self._session.scalars(sa.select(col(SessionChange.session_name)).where(is_it))).one()

    async def newest(self, session_ids: Collection[str]) -> AsyncGenerator[SessionEvent, None]:
        """Yield the newest event of each of these sessions that exists or existed; each is built when it is read.

        Close it (contextlib.aclosing) before the transaction ends.
        """
        session_id, version = col(SessionChange.session_id), col(SessionChange.version)
        is_one = session_id == any_of(session_ids)
        newest = sa.select(session_id, sa.func.max(version)).where(is_one).group_by(session_id)
        async for event in self._read(_events().where(sa.tuple_(session_id, version).in_(newest))):
            yield event

    async def after(self, change: int, limit: int) -> AsyncGenerator[SessionEvent, None]:
        """Yield up to `limit` events of the changes after `change`, in order; each is built when it is read.

        Close it (contextlib.aclosing) before the transaction ends.
        """
        question = _events().where(col(SessionChange.change) > change).order_by(col(SessionChange.change)).limit(limit)
        async for event in self._read(question):
            yield event

    async def _read(self, question: _Events) -> AsyncGenerator[SessionEvent, None]:
        rows = await self._session.stream(question, execution_options={"yield_per": _READ_AHEAD})
        try:
            async for row in rows:
                yield _event_of(row)
        finally:
            await rows.close()


def _events() -> _Events:
    version = col(SessionChange.version)
    added, removed = col(Subscriber.added_version), col(Subscriber.removed_version)
    return sa.select(
        SessionChange,
        col(Session.creator),
        col(Session.session_type),
        _people((added <= version) & (removed.is_(None) | (removed > version))).label("subscribers"),
        _people(added == version).label("added"),
        _people(removed == version).label("removed"),
    ).join(Session, col(Session.session_id) == col(SessionChange.session_id))


def _people(which: sa.ColumnElement[bool]) -> sa.ColumnElement[list[str]]:
    is_there = col(Subscriber.session_id) == col(SessionChange.session_id)
    ids = sa.select(col(Subscriber.user_id)).where(is_there, which).order_by(*_IN_ORDER).correlate(SessionChange)
    return sa.func.array(ids.scalar_subquery(), type_=_TEXTS)


def _event_of(row: sa.Row[SessionChange, str, int, list[str], list[str], list[str]]) -> SessionEvent:
    change, creator, session_type, subscribers, added, removed = row
    return SessionEvent(
        **change.model_dump(),
        msg_type=type_of_change(change.version, deleted=change.deleted),
        session_type=session_type,
        session_user=creator,
        subscribers=subscribers,
        added=added,
        removed=removed,
    )
