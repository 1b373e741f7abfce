"""The checks of a request about a session, before anything changes (docs/wire-protocol.md, "Legacy HTTP")."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tlim_protocol.characters import is_plain_text, shows_something
from tlim_protocol.errors import ErrorCode, TlimError, quoted
from tlim_protocol.identity import MAX_ID
from tlim_protocol.names import MAX_NAME, checked_name, joined_names
from tlim_protocol.registry import MsgType

from session_api.errors import VersionConflictError
from session_api.models import Session
from session_api.users_service import user_ids

MAX_SESSION_TYPE = 2**63 - 1
"""The specification gives session_type no upper bound. This is the bound of its column, a bigint."""


MAX_LISTED = 30_000
"""The most users in one list of a request, known or not: three times the largest group, read in about 0.3 s."""


@dataclass(frozen=True, slots=True)
class NewSession:
    """A request of addSession; without a name the session gets the names of its subscribers."""

    session_type: int
    subscribers: Sequence[str]
    session_name: str | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """A request of modifySession; `version`, if given, is the version that the caller has seen."""

    session_name: str | None = None
    add: Sequence[str] = ()
    remove: Sequence[str] = ()
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """The effect of an edit on a session after all checks: nothing, or one new version."""

    session_name: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def checked_session_id(session_id: str) -> str:
    """Return the id if a session can have it; raises SESSION_ID_EMPTY, or FIELD_INVALID for any other bad id."""
    if not session_id.strip():
        raise TlimError(ErrorCode.SESSION_ID_EMPTY, "session_id is missing or blank", field="session_id")
    if len(session_id) > MAX_ID or not is_plain_text(session_id):
        raise TlimError(ErrorCode.FIELD_INVALID, f"{quoted(session_id)} is not a session_id", field="session_id")
    return session_id


def checked_new_session(new: NewSession) -> NewSession:
    """Return a request for a session with its name as it will be, and normalised ids, each once.

    Raises SESSION_TYPE_INVALID, SESSION_NAME_EMPTY for a name that nobody can read, USER_UNKNOWN for a blank id,
    FIELD_INVALID.
    """
    if not 0 <= new.session_type <= MAX_SESSION_TYPE:
        raise TlimError(ErrorCode.SESSION_TYPE_INVALID, "session_type is not an integer ≥ 0", field="session_type")
    name = None if new.session_name is None else checked_session_name(new.session_name)
    return NewSession(new.session_type, user_ids(new.subscribers), name)


def type_of_change(version: int, *, deleted: bool) -> MsgType:
    """Return the type of the event for a version: the session was added, changed or deleted."""
    if deleted:
        return MsgType.SESSION_DELETED
    return MsgType.SESSION_ADDED if version == 1 else MsgType.SESSION_CHANGED


def leads(session: Session, subscribers: Collection[str], known: Collection[str]) -> bool:
    """Tell whether the creator leads, i.e. may remove others and delete: while they are a member and active."""
    return session.creator in subscribers and session.creator in known


def leader_of(session: Session, subscribers: Sequence[str], known: Collection[str]) -> str | None:
    """Return the member who may remove others and delete: the creator, or else the active member of longest standing.

    Without such a member a session would be stuck for ever. A creator who comes back leads again.
    """
    if leads(session, subscribers, known):
        return session.creator
    return next((one for one in subscribers if one in known), None)


def joined_name(ids: Sequence[str], names: Mapping[str, str]) -> str:
    """Return the name of a session that nobody named: its people's names, joined by commas, cut to 128 characters.

    A person whose name shows nothing visible is named by their id.
    """
    return joined_names([names[one] if shows_something(names[one]) else one for one in ids[:MAX_NAME]])


def checked_session_name(raw: str) -> str:
    """Return the name of a session; raises SESSION_NAME_EMPTY if nothing of it is visible, or FIELD_INVALID."""
    return checked_name(raw, field="session_name", unseen=ErrorCode.SESSION_NAME_EMPTY)


def checked_edit(edit: Edit) -> Edit:
    """Return an edit with normalised ids, each once; these checks do not need the session.

    Raises SESSION_NAME_EMPTY for a name that shows nothing visible, and USER_UNKNOWN for a blank id. Raises
    FIELD_INVALID for a bad name or id, for a person both to be added and removed, and for an empty request.
    """
    name = None if edit.session_name is None else checked_session_name(edit.session_name)
    add, remove = user_ids(edit.add), user_ids(edit.remove)
    both = set(add).intersection(remove)
    if both:
        detail = f"{quoted(min(both))} is both to be added and to be removed"
        raise TlimError(ErrorCode.FIELD_INVALID, detail, field="subscribers")
    if name is None and not add and not remove:
        raise TlimError(
            ErrorCode.FIELD_INVALID, "neither a session_name nor subscribers to add or remove", field="session_name"
        )
    return Edit(name, add, remove, edit.version)


def plan_edit(
    session: Session, subscribers: Sequence[str], caller: str, edit: Edit, *, known: Collection[str], limit: int
) -> Change:
    """Check a whole edit against a session before anything changes, and return its effect.

    `known`: the active users among the people to add, the caller, and the members who may lead (see `leader_of`).
    Raises SESSION_UNKNOWN for a stranger, NOT_ALLOWED for a caller without the right, and VersionConflictError. Raises
    USER_UNKNOWN when the edit only adds people and none is known, FIELD_INVALID for a result over `limit` people.
    """
    check_inside(session, subscribers, caller, edit.version)
    inside = set(subscribers)
    if set(edit.remove) - {caller} and caller != leader_of(session, subscribers, known):
        raise TlimError(ErrorCode.NOT_ALLOWED, "only who created a session removes others from it", field="subscribers")
    if caller not in known:
        raise TlimError(ErrorCode.NOT_ALLOWED, "your account is deactivated", field="user_id")
    unknown = tuple(one for one in edit.add if one not in inside and one not in known)
    if unknown and len(unknown) == len(edit.add) and not edit.remove and edit.session_name is None:
        raise TlimError(ErrorCode.USER_UNKNOWN, f"nobody knows {quoted(unknown[0])}", field="user_id")
    added = tuple(one for one in edit.add if one not in inside and one in known)
    removed = tuple(one for one in edit.remove if one in inside)
    if added:
        check_size(len(subscribers) + len(added) - len(removed), limit)
    return Change(edit.session_name or session.session_name, added, removed, unknown)


def check_inside(session: Session, subscribers: Sequence[str], caller: str, version: int | None) -> None:
    """Raise SESSION_UNKNOWN for a stranger, VersionConflictError if the caller has not seen the present version."""
    if caller not in subscribers:
        raise no_such_session(session.session_id)
    if version is not None and version != session.version:
        raise VersionConflictError(seen=version, current=session.version)


def check_size(size: int, limit: int) -> None:
    """Raise FIELD_INVALID when a session of `size` people is larger than the limit."""
    if size > limit:
        detail = f"a session holds at most {limit} subscribers, this one would hold {size}"
        raise TlimError(ErrorCode.FIELD_INVALID, detail, field="subscribers")


def no_such_session(session_id: str) -> TlimError:
    """Return the refusal for a session that is unknown, deleted or not the caller's: it is the same for all three."""
    return TlimError(ErrorCode.SESSION_UNKNOWN, f"there is no session {quoted(session_id)}", field="session_id")


def who_is_in(creator: str, listed: Sequence[str], known: Collection[str]) -> list[str]:
    """Return the people of a new session in the order given; a creator who is not listed comes first.

    Raises SESSION_USER_UNKNOWN when the creator is not known, or none of the listed people is.
    """
    if creator not in known:
        raise TlimError(ErrorCode.SESSION_USER_UNKNOWN, f"nobody knows {quoted(creator)}", field="session_user")
    inside = [one for one in listed if one in known]
    if not inside:
        raise TlimError(ErrorCode.SESSION_USER_UNKNOWN, "nobody knows any of the subscribers", field="subscribers")
    return inside if creator in inside else [creator, *inside]
