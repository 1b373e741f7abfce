"""What a session event changes, and how its subscribers are told (HTS-*, docs/wire-protocol.md, "What a type does")."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tlim_protocol.envelope import Envelope
from tlim_protocol.events import SessionEvent
from tlim_protocol.identity import is_direct
from tlim_protocol.notices import kept_form
from tlim_protocol.registry import MsgType

from message_store.values import LogRow, ReadRow, Roster

SERVER = ""
"""The sender of notices and gathered receipts in the table. People in whose name they are told get them too."""

ACTOR = "actor"
"""The key under which a notice says who made the change."""

_TIME_FIELD: Mapping[MsgType, str] = {
    MsgType.SESSION_ADDED: "session_create_time",
    MsgType.SESSION_CHANGED: "session_modify_time",
    MsgType.SESSION_DELETED: "session_delete_time",
}


class RosterChange(NamedTuple):
    """The result of an event: the roster afterwards, the users who joined, and the users who left.

    `left` maps each of them to the seq at which their membership began.
    """

    roster: Roster
    joined: Sequence[str]
    left: Mapping[str, int]

    @property
    def audience(self) -> list[str]:
        """All people who are told: the members, and those who just left."""
        return [*self.roster.members, *self.left]


def change_of(before: Roster | None, event: SessionEvent, seq: int) -> RosterChange:
    """Return the change from the known roster of a session to the one in `event`; its notice has the seq `seq`.

    We compare the rosters and do not use the event's own `added` and `removed`, as an event in between may be missing.
    """
    members = before.members if before is not None else {}
    subscribers = dict.fromkeys(event.subscribers)
    left = {user_id: joined for user_id, joined in members.items() if user_id not in subscribers}
    stayed = {user_id: joined for user_id, joined in members.items() if user_id in subscribers}
    joined = [user_id for user_id in subscribers if user_id not in members]
    return RosterChange(Roster(event.version, event.deleted, {**stayed, **dict.fromkeys(joined, seq)}), joined, left)


def notice_id(event: SessionEvent) -> str:
    """Return the msg_id of the notice of a session's version."""
    return f"{event.session_id}:{event.version}"


def notice_of(event: SessionEvent, change: RosterChange) -> Envelope:
    """Return the notice: one element with the fields of the HTTP answer, the author of the change, and its effect.

    The body is what the log keeps. The bridge and sync make of it what each receiver gets (tlim_protocol.notices).
    """
    element: dict[str, Any] = {
        "session_id": event.session_id,
        "session_name": event.session_name,
        "session_type": event.session_type,
        "session_user": event.session_user,
        "session_valid": int(event.deleted),  # as the specification has it: 0 valid, 1 deleted
        _TIME_FIELD[event.msg_type]: str(event.at),
        ACTOR: event.actor,
        "version": event.version,
        "subscribers": _listed(change.roster.members),
        "added": _listed(change.joined),
        "removed": _listed(change.left),
    }
    return Envelope(
        msg_from=event.actor,
        msg_id=notice_id(event),
        msg_type=event.msg_type,
        msg_time=str(event.at),
        body=[kept_form(element)],
    )


def _listed(people: Iterable[str]) -> list[dict[str, str]]:
    return [{"user_id": user_id} for user_id in people]


def receiver_of(row: LogRow | ReadRow) -> str | None:
    """Return the `to` of a row: a user's message to a session has none, even if only one author gets it."""
    return row.recipient if row.sender == SERVER or is_direct(row.conversation_id) else None


def in_the_name_of(body: Sequence[Mapping[str, Any]]) -> str:
    """Return the user in whose name a row of the server is delivered: who made the change, or the first reader."""
    element = body[0]
    return str(element["readers"][0]["user_id"] if "readers" in element else element.get(ACTOR, ""))
