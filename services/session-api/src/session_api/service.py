"""The story of sessions: create, edit, delete, read. No SQL, no HTTP, no NATS."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import SessionEvent
from tlim_protocol.identity import MAX_ID

from session_api.changes_repository import ChangeRepository
from session_api.clock import Clock, now_ms
from session_api.edits import (
    Change,
    Edit,
    NewSession,
    check_inside,
    check_size,
    checked_edit,
    checked_new_session,
    checked_session_id,
    joined_name,
    leader_of,
    leads,
    no_such_session,
    plan_edit,
    type_of_change,
    who_is_in,
)
from session_api.idempotency import KEPT_MS, check_same, fingerprint
from session_api.idempotency_repository import IdempotencyRepository
from session_api.models import IdempotencyKey, Session, Subscriber
from session_api.repository import SessionRepository
from session_api.users_repository import UserRepository


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller. `authenticated`: a token proves that they exist; otherwise a trusted network only claims it."""

    user_id: str
    authenticated: bool = True


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session, its members in the order in which they came, and the ids of the request that are not known."""

    session: Session
    subscribers: Sequence[str]
    unknown: Sequence[str] = ()


def event_of(
    session: Session, subscribers: Sequence[str], added: Sequence[str], removed: Sequence[str]
) -> SessionEvent:
    """Return the event that tells the other services of the session's newest version."""
    at = session.deleted_at or session.modified_at or session.created_at
    return SessionEvent(
        msg_type=type_of_change(session.version, deleted=session.deleted_at is not None),
        session_id=session.session_id,
        session_name=session.session_name,
        session_type=session.session_type,
        session_user=session.creator,
        version=session.version,
        actor=session.changed_by,
        at=at,
        subscribers=list(subscribers),
        added=list(added),
        removed=list(removed),
        deleted=session.deleted_at is not None,
    )


def largest_event(limit: int) -> int:
    """Return the largest size of an event of a session of up to `limit` people, in bytes of JSON.

    The largest event is an edit that replaces everybody: it lists `limit` ids as subscribers, as added and as removed.
    An id has up to 64 letters of four bytes, with quotes and a comma. The rest is a name and a few ids.
    """
    return 3 * limit * (4 * MAX_ID + 3) + 4_096


MANY_USERS = 1_000
"""Longer lists are checked in a thread. An id that is not ASCII takes 60 µs: a list of 30,000 delayed all other
requests by two seconds."""

Given = TypeVar("Given")
Result = TypeVar("Result")


async def _read(check: Callable[[Given], Result], given: Given, *, size: int) -> Result:
    """Return the result of a check of `size` ids; run it in a thread when they are many."""
    return await asyncio.to_thread(check, given) if size > MANY_USERS else check(given)


RequireBroker = Callable[[], Awaitable[None]]
"""Raises BrokerUnavailable unless a change could be published to the other services now."""


Charge = Callable[[str, int], None]
"""Counts for a user how many people hear of a change; raises TooManyRequests."""


class SessionService:
    """The rules of sessions, for their doors; changes take effect when the caller's transaction is committed."""

    def __init__(
        self,
        sessions: SessionRepository,
        changes: ChangeRepository,
        users: UserRepository,
        keys: IdempotencyRepository,
        require_broker: RequireBroker,
        *,
        charge: Charge,
        limit: int,
        clock: Clock = now_ms,
    ) -> None:
        self._sessions = sessions
        self._changes = changes
        self._users = users
        self._keys = keys
        self._require_broker = require_broker
        self._charge = charge
        self._limit = limit
        self._clock = clock

    async def create(self, caller: Caller, new: NewSession, key: str | None = None) -> SessionView:
        """Create a session of the caller and the known users among `new.subscribers`.

        With an `Idempotency-Key` that has made one within 24 h: return that one as it was then.

        Raises SESSION_TYPE_INVALID, SESSION_USER_UNKNOWN (the caller is unknown, or nobody listed is known),
        USER_UNKNOWN for a blank id, SESSION_NAME_EMPTY for a name that shows nothing visible, FIELD_INVALID,
        TooManyRequests.
        """
        new = await _read(checked_new_session, new, size=len(new.subscribers))
        made = None if key is None else await self._made_before(caller, new, key)
        if made is not None:
            return made
        self._charge(caller.user_id, 1 + len(new.subscribers))
        view = await self._make(caller, new)
        if key is not None:
            await self._keep(key, new, view)
        await self._changes.tell(event_of(view.session, view.subscribers, added=view.subscribers, removed=()))
        return view

    async def _made_before(self, caller: Caller, new: NewSession, key: str) -> SessionView | None:
        await self._keys.lock(caller.user_id, key)
        found = await self._keys.find(caller.user_id, key, self._clock() - KEPT_MS)
        if found is None:
            return None
        made, session = found
        check_same(made.request, fingerprint(new))
        return await self._as_created(session, made.unknown)

    async def _keep(self, key: str, new: NewSession, view: SessionView) -> None:
        session = view.session
        made = IdempotencyKey(
            user_id=session.creator,
            key=key,
            request=fingerprint(new),
            session_id=session.session_id,
            unknown=list(view.unknown),
            at=session.created_at,
        )
        await self._keys.keep(made, session.created_at - KEPT_MS)

    async def _as_created(self, session: Session, unknown: Sequence[str]) -> SessionView:
        first = Session(
            session_id=session.session_id,
            session_name=await self._changes.name_at(session.session_id, 1),
            session_type=session.session_type,
            creator=session.creator,
            changed_by=session.creator,
            created_at=session.created_at,
        )
        return SessionView(first, await self._sessions.subscribers(first), unknown)

    async def _make(self, caller: Caller, new: NewSession) -> SessionView:
        now = self._clock()
        known = await self._users.names_of_known([caller.user_id, *new.subscribers])
        if caller.authenticated and caller.user_id not in known:
            await self._users.meet([caller.user_id], now)
            known |= await self._users.names_of_known([caller.user_id])
        inside = who_is_in(caller.user_id, new.subscribers, known)
        check_size(len(inside), self._limit)
        session = Session(
            session_id=str(uuid.uuid4()),
            session_name=new.session_name or joined_name(inside, known),
            session_type=new.session_type,
            creator=caller.user_id,
            changed_by=caller.user_id,
            created_at=now,
        )
        await self._sessions.add(session, inside)
        return SessionView(session, inside, tuple(one for one in new.subscribers if one not in known))

    async def edit(self, caller: Caller, session_id: str, edit: Edit) -> SessionView:
        """Rename, add and remove as one new version; without any real change there is no new version.

        Raises what `checked_edit` and `plan_edit` raise, TooManyRequests, and BrokerUnavailable when people are removed
        but the event could not be published.
        """
        checked_session_id(session_id)
        edit = await _read(checked_edit, edit, size=len(edit.add) + len(edit.remove))
        session = await self._locked(session_id)
        subscribers = await self._sessions.subscribers(session)
        known = await self._known(session, subscribers, [caller.user_id, *edit.add])
        change = plan_edit(session, subscribers, caller.user_id, edit, known=known, limit=self._limit)
        if change.added or change.removed or change.session_name != session.session_name:
            if change.removed:
                await self._require_broker()
            self._charge(caller.user_id, len(subscribers) + len(change.added))  # last: what is refused costs nothing
            subscribers = await self._apply(session, subscribers, caller.user_id, change)
        return SessionView(session, subscribers, change.unknown)

    async def delete(self, caller: Caller, session_id: str, version: int | None = None) -> SessionView:
        """Delete a session for everybody, keeping it as a record.

        Raises SESSION_UNKNOWN, NOT_ALLOWED, VersionConflictError, TooManyRequests, and BrokerUnavailable if no event
        could be published.
        """
        session = await self._locked(session_id)
        subscribers = await self._sessions.subscribers(session)
        check_inside(session, subscribers, caller.user_id, version)
        known = await self._known(session, subscribers, [caller.user_id])
        if caller.user_id != leader_of(session, subscribers, known):
            raise TlimError(ErrorCode.NOT_ALLOWED, "only who created a session deletes it", field="session_id")
        await self._require_broker()
        self._charge(caller.user_id, len(subscribers))
        session.version += 1
        session.changed_by = caller.user_id
        session.deleted_at = self._clock()
        await self._changes.tell(event_of(session, subscribers, added=(), removed=()))
        return SessionView(session, subscribers)

    async def get(self, caller: Caller, session_id: str) -> SessionView:
        """Return a session the caller is in; raises SESSION_UNKNOWN."""
        session = await self._sessions.find(checked_session_id(session_id))
        if session is None or session.deleted_at is not None:
            raise no_such_session(session_id)
        subscribers = await self._sessions.subscribers(session)
        check_inside(session, subscribers, caller.user_id, version=None)
        return SessionView(session, subscribers)

    async def people(
        self, caller: Caller, session_id: str, after: tuple[int, int], limit: int
    ) -> list[tuple[Subscriber, str]]:
        """Return a page of the members of a session of the caller, with names; raises SESSION_UNKNOWN."""
        session = await self._sessions.find(checked_session_id(session_id))
        if session is None or session.deleted_at or not await self._sessions.is_in(session_id, caller.user_id):
            raise no_such_session(session_id)
        return await self._sessions.people(session_id, after, limit)

    async def mine(self, caller: Caller, before: tuple[int, str] | None, limit: int) -> Sequence[Session]:
        """Return up to `limit` of the caller's sessions, newest first, from before a place (created_at, session_id)."""
        return await self._sessions.of_user(caller.user_id, before, limit)

    async def undo(self, session_id: str, version: int) -> None:
        """Take back a version that was not published: people whom it removed are members again, in their old places.

        A session that a later version deleted stays deleted: that deletion is answered for itself.
        One more version tells the present state, in case a reader has heard of the undone version anyway.
        """
        session = await self._sessions.lock(session_id, deleted=True)
        if session is None:
            raise no_such_session(session_id)
        name_before, was_deletion = await self._changes.retract(session_id, version)
        await self._sessions.retract(session_id, version)
        if session.version == version:
            session.session_name = name_before
        session.version += 1
        session.modified_at = self._clock()
        if was_deletion:
            session.deleted_at = None
        await self._changes.tell(event_of(session, await self._sessions.subscribers(session), added=(), removed=()))

    async def _locked(self, session_id: str) -> Session:
        session = await self._sessions.lock(checked_session_id(session_id))
        if session is None:
            raise no_such_session(session_id)
        return session

    async def _known(self, session: Session, subscribers: Sequence[str], others: Sequence[str]) -> dict[str, str]:
        """Return id -> name of known users: among `others`, and among the subscribers if it decides who leads."""
        known = await self._users.names_of_known([session.creator, *others])
        return known if leads(session, subscribers, known) else known | await self._users.names_of_known(subscribers)

    async def _apply(self, session: Session, subscribers: Sequence[str], caller: str, change: Change) -> list[str]:
        session.version += 1
        session.changed_by = caller
        session.modified_at = self._clock()
        session.session_name = change.session_name
        if change.removed:
            await self._sessions.remove_subscribers(
                session.session_id, change.removed, session.version, session.modified_at
            )
        if change.added:
            await self._sessions.add_subscribers(session.session_id, change.added, session.version, session.modified_at)
        gone = set(change.removed)
        now_inside = [*(one for one in subscribers if one not in gone), *change.added]
        await self._changes.tell(event_of(session, now_inside, change.added, change.removed))
        return now_inside
