"""What the bridge and message-store tell each other about mailboxes, in the form of events.py."""

from typing import Self

from pydantic import Field, model_validator

from tlim_protocol.events import Carrier, Event, StoredMessage
from tlim_protocol.identity import DELIVERY_SHARDS, delivery_shard

NOTICED_S = 180
"""A client's broken connection is noticed within this time: ejabberd takes 120 s, and Prosody 160 s (deploy/)."""


class MailboxNote(Event):
    """What the bridge knows of one person's sessions; see MailboxNotes.

    With `sessions` the person is present: the live deliveries of everything after the catch-up reach those sessions.
    `is_new`: the catch-up has just ended. `is_stale`: all of them lost their network and may resume.

    Without `sessions` the person has gone. `taken` is the seq up to which the devices have confirmed everything, None
    when nobody knows. `at_most` is there when a message reached no session: the seq before it. The mailbox goes back to
    it, also if the person is present.
    """

    user_id: str
    sessions: list[str] = Field(default=[])
    is_new: bool = False
    is_stale: bool = False
    taken: int | None = None
    at_most: int | None = None


class MailboxNotes(Event):
    """Request of `tlim.rpc.mailbox.note`: notes about people of one shard, in the order in which they became true.

    `term` is what LiveAnswer gave to the bridge that has the shard. `settled_seq`: everything up to it had been handed
    to the XMPP server at `settled_at`, NOTICED_S ago or more, so a connection that was broken then has been noticed. A
    note about a person of another shard is a mistake of the asker: such a request cannot be made.

    `number` rises with each request of a term, also if it says the same again. A request that is taken after a newer
    one changes nothing: the instance of message-store that had it has hung. None: the asker is of an older release.
    """

    shard: int = Field(ge=0, lt=DELIVERY_SHARDS)
    term: int
    number: int | None = None
    notes: list[MailboxNote] = Field(max_length=1_000)
    settled_seq: int | None = None
    settled_at: int | None = None

    @model_validator(mode="after")
    def _are_of_the_shard(self) -> Self:
        for note in self.notes:
            if delivery_shard(note.user_id) != self.shard:
                raise ValueError(f"a note about {note.user_id!r}, whose shard is not {self.shard}")
        return self


class MailboxNoted(Event):
    """Answer of `tlim.rpc.mailbox.note`: the notes are committed.

    `is_outdated`: nothing was changed, because another bridge has begun a later term.
    """

    is_outdated: bool = False


class LiveQuestion(Event):
    """Request of `tlim.rpc.mailbox.live`: the people of a shard that were present at the last note, by user id.

    Without `term` a new term of the shard begins: from now on the notes of earlier terms change nothing. The questions
    for further pages name the term, and `after_user`, the last user id that is known.
    """

    shard: int = Field(ge=0, lt=DELIVERY_SHARDS)
    term: int | None = None
    after_user: str = ""
    limit: int = Field(default=1_000, gt=0, le=10_000)


class LivePerson(Event):
    """A person who was present at the last note, and the ids of the sessions."""

    user_id: str
    sessions: list[str]


class LiveAnswer(Event):
    """Answer of `tlim.rpc.mailbox.live`: people, whether there are more, and the term of the shard.

    `is_outdated`: there are no people in it, because another bridge has begun a later term.
    """

    people: list[LivePerson]
    more: bool
    term: int
    is_outdated: bool = False


class MissedQuestion(Event):
    """Request of `tlim.rpc.mailbox.missed`: what a person has missed, after seq `after`, oldest first.

    Without `after` it begins where the person's mailbox stands. `receipts`: whether receipts are wanted. It is what the
    answer to the first question said. The store answers a few of these questions at a time, and the first one about
    somebody who was away for months takes a second: an asker waits for more than 2 s.
    """

    user_id: str
    after: int | None = None
    limit: int = Field(default=100, gt=0, le=500)
    receipts: bool = True


class MissedAnswer(Carrier):
    """Answer of `tlim.rpc.mailbox.missed`: a page of deliveries, and where the next one begins.

    A page may be empty although `more` is true: what was looked at concerned the person, and is not sent. `up_to`: the
    pages contain everything addressed to the person up to this seq. Without `more` it is the newest seq of the whole
    log, in the snapshot in which the page was read. `receipts`: receipts are among the deliveries. They are not when
    there are many of them. `is_cut`: there was more than is sent, and the oldest was left out. Only the first answer
    tells it.
    """

    events: list[StoredMessage]
    next: int
    more: bool
    up_to: int
    receipts: bool
    is_cut: bool = False
