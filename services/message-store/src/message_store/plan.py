"""The rules of a batch: what becomes of each message and session event, one after the other, without any I/O.

Later items see what earlier ones of the same batch did: a session is made and written to, a message is stored, read and
recalled, in one go. Whatever is refused has changed nothing.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import AcceptedMessage, OutEvent, RejectedMessage, SessionEvent, StoredMessage
from tlim_protocol.lenient import write_json
from tlim_protocol.registry import REGISTRY

from message_store.models import Audience
from message_store.notices import NOTICE_SENDER, Change, change_of, notice_of
from message_store.state import Item, Known, Place, Roster, Row, Span, Writes

_NOBODY: Sequence[str] = ()


class Audible(NamedTuple):
    """Who shall hear of a row, and in which words."""

    audience: Audience
    recipient: str | None
    recipients: Sequence[str]


class Plan:
    """Goes through a batch in order; `events`, `writes` and `rosters` are what comes of it.

    `seqs` are the places in the log that it may fill, rising: one for each item and for each answered session.
    `newest` is the seq up to which everything is published before the batch, `now` epoch milliseconds.
    `doubts` are the sessions because of which something was refused and of which session-api was not asked yet: then
    the plan has to be thrown away, and made again with its answers.
    """

    def __init__(self, known: Known, seqs: Sequence[int], *, newest: int, now: int) -> None:
        self.newest = newest
        self.now = now
        self.writes = Writes()
        self.events: list[tuple[str, OutEvent]] = []  # with the conversation that each belongs to
        self.rosters = dict(known.rosters)
        self.changes: list[int] = []  # of session-api, told by events of this batch
        self.doubts: set[str] = set()
        self._known = known
        self._seqs: Iterator[int] = iter(seqs)
        self._conversations = set(known.conversations)
        self._places = dict(known.places)
        self._earlier = dict(known.earlier)

    def run(self, items: Sequence[Item]) -> None:
        """Decide on every item."""
        for item in items:
            if isinstance(item, SessionEvent):
                self._changed(item)
                continue
            try:
                self._take(item)
            except TlimError as refusal:
                self._refuse(item, refusal)

    def _take(self, message: AcceptedMessage) -> None:
        envelope = message.envelope
        if envelope.msg_time is None:
            envelope = envelope.model_copy(update={"msg_time": str(message.received_at)})
        place = self._places.get((message.sender, envelope.msg_id))
        if place is not None:
            self._tell(message, envelope, place, _NOBODY)
            return
        session_id = envelope.session_id
        if not REGISTRY[envelope.msg_type].is_chat:
            title = REGISTRY[envelope.msg_type].title
            raise TlimError(ErrorCode.UNAVAILABLE, f"this server does not handle a {title} yet", field="msg_type")
        if session_id is None:
            audible = self._to_receiver(envelope)
        else:
            audible = _to_others(self._roster(session_id, message.sender), message.sender)
        self._keep(message, envelope, audible)

    def _to_receiver(self, envelope: Envelope) -> Audible:
        receiver, conversation_id = envelope.msg_to or "", envelope.conversation_id
        if conversation_id not in self._conversations:
            if self._known.users is None:
                raise TlimError(ErrorCode.UNAVAILABLE, "the users directory cannot be reached, try again", field="to")
            if receiver not in self._known.users:
                raise TlimError(ErrorCode.USER_UNKNOWN, f"{receiver} is not a user here", field="to")
            self._conversations.add(conversation_id)
            self.writes.conversations.append(conversation_id)
        return Audible(Audience.RECIPIENT, receiver, [receiver])

    def _roster(self, session_id: str, sender: str) -> Roster:
        """Return the session that `sender` writes to; before anybody is refused, session-api has been asked."""
        try:
            return _admitted(self.rosters.get(session_id), sender)
        except TlimError:
            if session_id not in self._known.answers:
                self.doubts.add(session_id)
                raise
        answer = self._known.answers[session_id]
        if answer is None:
            raise TlimError(ErrorCode.UNAVAILABLE, "the session cannot be asked for, try again", field="session_id")
        if answer.event is not None:
            self._changed(answer.event, is_in_order=False)
        return _admitted(self.rosters.get(session_id), sender)

    def _changed(self, event: SessionEvent, *, is_in_order: bool = True) -> None:
        """Apply a session event, unless this version or a newer one is applied already."""
        if is_in_order:
            self.changes.append(event.change)
        roster = self.rosters.get(event.session_id)
        if roster is not None and event.version <= roster.version:
            return
        seq = next(self._seqs)
        change = change_of(roster, event, seq)
        self.rosters[event.session_id] = change.roster
        self.writes.sessions[event.session_id] = event
        self._write_members(event.session_id, change, seq)
        envelope = notice_of(event, change)
        row = self._row(seq, envelope, event.session_id, Audible(Audience.MEMBERS, None, ()), "")
        self.writes.rows.append(row._replace(sender=NOTICE_SENDER))
        notice = StoredMessage(seq=seq, stored_at=self.now, recipients=change.audience, envelope=envelope)
        self.events.append((event.session_id, notice))

    def _write_members(self, session_id: str, change: Change, seq: int) -> None:
        for user_id in change.joined:
            self.writes.members[session_id, user_id, seq] = None
        for user_id, joined_seq in change.left.items():
            self.writes.members[session_id, user_id, joined_seq] = seq
            over = self._earlier.get((session_id, user_id), ())
            self._earlier[session_id, user_id] = (*over, Span(joined_seq, seq))

    def _keep(self, message: AcceptedMessage, envelope: Envelope, audible: Audible) -> None:
        row = self._row(next(self._seqs), envelope, envelope.conversation_id, audible, message.location)
        self.writes.rows.append(row)
        if REGISTRY[envelope.msg_type].carries_file:
            self.writes.files += [(file_id, row.seq) for file_id in envelope.file_ids]
        place = Place(
            row.seq, self.now, row.conversation_id, row.sender, row.msg_id, is_chat=row.is_chat, is_recalled=False
        )
        self._places[row.sender, row.msg_id] = place
        self._tell(message, envelope, place, audible.recipients)

    def _tell(self, message: AcceptedMessage, envelope: Envelope, place: Place, recipients: Sequence[str]) -> None:
        """Publish a delivery; without recipients only the sender's confirmation."""
        event = StoredMessage(
            seq=place.seq,
            stored_at=place.stored_at,
            recipients=list(recipients),
            envelope=envelope,
            reply_to=message.reply_to,
            stanza_id=message.stanza_id,
            received_at=message.received_at,
        )
        self.events.append((place.conversation_id, event))

    def _row(self, seq: int, envelope: Envelope, conversation_id: str, audible: Audible, location: str) -> Row:
        self.newest = seq
        return Row(
            seq=seq,
            conversation_id=conversation_id,
            sender=envelope.msg_from,
            recipient=audible.recipient,
            audience=audible.audience,
            msg_id=envelope.msg_id,
            msg_type=envelope.msg_type,
            is_chat=REGISTRY[envelope.msg_type].is_chat,
            version=envelope.version,
            body=write_json(envelope.body),
            msg_time=envelope.msg_time or "",
            location=location,
            stored_at=self.now,
        )

    def _refuse(self, message: AcceptedMessage, refusal: TlimError) -> None:
        event = RejectedMessage(
            code=refusal.code,
            detail=refusal.detail,
            field=refusal.field,
            msg_id=message.envelope.msg_id,
            msg_type=message.envelope.msg_type,
            sender=message.sender,
            reply_to=message.reply_to,
            stanza_id=message.stanza_id,
            received_at=message.received_at,
            after_seq=self.newest,
        )
        self.events.append((message.envelope.conversation_id, event))


def _admitted(roster: Roster | None, sender: str) -> Roster:
    if roster is None or roster.is_deleted:
        sentence = "there is no such session" if roster is None else "the session is deleted"
        raise TlimError(ErrorCode.SESSION_UNKNOWN, sentence, field="session_id")
    if sender not in roster.members:
        raise TlimError(ErrorCode.NOT_ALLOWED, "you are not in this session", field="session_id")
    return roster


def _to_others(roster: Roster, sender: str) -> Audible:
    return Audible(Audience.MEMBERS, None, [user_id for user_id in roster.members if user_id != sender])
