"""Who else hears of a row of the log, as the table says it and as a list of people."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from tlim_protocol.envelope import Envelope

from message_store.commands import Named
from message_store.models import Audience
from message_store.values import Roster


class Audible(NamedTuple):
    """Who shall hear of a row; `extra` are people whom the table lists besides the members of the session."""

    audience: Audience
    recipient: str | None
    recipients: Sequence[str]
    extra: Sequence[str] = ()

    @property
    def listed(self) -> Sequence[str]:
        """Those whom the table lists one by one."""
        return self.recipients if self.audience is Audience.ADDRESSEES else self.extra


TO_NOBODY = Audible(Audience.NOBODY, None, ())


def to_others(roster: Roster, sender: str, *, besides: Collection[str] = ()) -> Audible:
    """Return all other members of a session, and people besides who are not in it any more."""
    members = [user_id for user_id in roster.members if user_id != sender]
    extra = [user_id for user_id in besides if user_id not in roster.members and user_id != sender]
    return Audible(Audience.MEMBERS, None, [*members, *extra], extra)


def to_peers(envelope: Envelope, roster: Roster | None) -> Audible:
    """Return the other person of the conversation, or all other members of the session."""
    if roster is not None:
        return to_others(roster, envelope.msg_from)
    return Audible(Audience.RECIPIENT, envelope.msg_to, [envelope.msg_to or ""])


def to_listed(people: Collection[str]) -> Audible:
    """Return people one by one."""
    listed = list(people)
    if len(listed) > 1:
        return Audible(Audience.ADDRESSEES, None, listed)
    return Audible(Audience.RECIPIENT, listed[0], listed) if listed else TO_NOBODY


def to_authors(news: Sequence[Named]) -> Audible:
    """Return those who wrote the messages."""
    return to_listed(dict.fromkeys(place.sender for one in news for place in one.places))


def to_readers(roster: Roster, author: str, readers: Collection[str]) -> Audible:
    """Return those who can still read what an author takes back.

    From an open session that the author is in, its other members hear it too, those included who came afterwards.
    """
    others = {user_id for user_id in roster.members if user_id != author}
    if others.issubset(readers) or (author in roster.members and not roster.is_deleted):
        return to_others(roster, author, besides=readers)
    return to_listed([user_id for user_id in readers if user_id != author])
