"""The audience of a row of the log besides its sender, as the table stores it and as a list of people."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from tlim_protocol.envelope import Envelope

from message_store.commands import Named
from message_store.models import Audience
from message_store.values import Roster


class Audible(NamedTuple):
    """The people who are told of a row; `extra` are those whom the table lists in addition to the session's members."""

    audience: Audience
    recipient: str | None
    recipients: Sequence[str]
    extra: Sequence[str] = ()

    @property
    def listed(self) -> Sequence[str]:
        """The people whom the table lists one by one."""
        return self.recipients if self.audience is Audience.ADDRESSEES else self.extra


TO_NOBODY = Audible(Audience.NOBODY, None, ())


def to_others(roster: Roster, sender: str, *, besides: Collection[str] = ()) -> Audible:
    """Return all members of a session without the sender, and the people of `besides` who are no longer in it."""
    members = [user_id for user_id in roster.members if user_id != sender]
    extra = [user_id for user_id in besides if user_id not in roster.members and user_id != sender]
    return Audible(Audience.MEMBERS, None, [*members, *extra], extra)


def to_peers(envelope: Envelope, roster: Roster | None) -> Audible:
    """Return the other person of a 1:1 conversation, or all other members of a session."""
    if roster is not None:
        return to_others(roster, envelope.msg_from)
    return Audible(Audience.RECIPIENT, envelope.msg_to, [envelope.msg_to or ""])


def to_listed(people: Collection[str]) -> Audible:
    """Return an audience of single people."""
    listed = list(people)
    if len(listed) > 1:
        return Audible(Audience.ADDRESSEES, None, listed)
    return Audible(Audience.RECIPIENT, listed[0], listed) if listed else TO_NOBODY


def to_authors(news: Sequence[Named]) -> Audible:
    """Return the authors of the messages."""
    return to_listed(dict.fromkeys(place.sender for one in news for place in one.places))


def to_readers(roster: Roster, author: str, readers: Collection[str]) -> Audible:
    """Return the readers who can still see a message that its author recalls.

    If the author is in the session and it is open, all its other members are told, also those who joined later.
    """
    others = {user_id for user_id in roster.members if user_id != author}
    if others.issubset(readers) or (author in roster.members and not roster.is_deleted):
        return to_others(roster, author, besides=readers)
    return to_listed([user_id for user_id in readers if user_id != author])
