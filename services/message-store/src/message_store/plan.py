"""The rules of a batch: what becomes of each message and session event, in order, without any I/O.

Later items see what earlier items of the same batch did. So one batch can create a session and write to it, or store a
message, report it as read and recall it. A refused item changes nothing.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from typing import assert_never

from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode, TlimError, quoted
from tlim_protocol.events import OutEvent, SessionEvent, StoredMessage
from tlim_protocol.lenient import same_json, write_json
from tlim_protocol.registry import REGISTRY, Effect

from message_store.audience import TO_NOBODY, Audible, to_authors, to_peers, to_readers
from message_store.commands import Named, recalled, reported
from message_store.models import Audience
from message_store.notices import SERVER, RosterChange, change_of, notice_of
from message_store.refusals import refusal_of
from message_store.values import ArrivedMessage, Item, Known, LogRow, Place, Roster, Span, Writes

_NOBODY: Sequence[str] = ()


class Plan:
    """Goes through a batch in order; the results are `events`, `writes` and `rosters`.

    `seqs`: the rising seqs that it may use, one for each item and one for each session that session-api answered for.
    `newest`: everything up to this seq is published before the batch. `now`: epoch milliseconds. `recall_window`: ms
    after storing in which a message may be recalled. `read_to_all`: in larger sessions only authors hear who read.
    `doubts` are sessions because of which a message was refused although session-api was not asked about them yet. If
    there are any, the caller throws this plan away and makes a new one with session-api's answers.
    """

    def __init__(
        self, known: Known, seqs: Sequence[int], *, newest: int, now: int, recall_window: int, read_to_all: int
    ) -> None:
        self.newest = newest
        self.writes = Writes(now)
        self.events: list[OutEvent] = []
        self.rosters = dict(known.rosters)
        self.changes: list[int] = []  # numbers of session-api's changes that events of this batch brought
        self.doubts: set[str] = set()
        self._known = known
        self._seqs: Iterator[int] = iter(seqs)
        self._recall_window = recall_window
        self._read_to_all = read_to_all
        self._conversations = set(known.conversations)
        self._places = dict(known.places)
        self._sent = dict(known.sent)
        self._senders = dict(known.senders)
        self._earlier = dict(known.earlier)
        self._leavers: dict[str, set[str]] = {}  # by session
        for session_id, user_id in self._earlier:
            self._leavers.setdefault(session_id, set()).add(user_id)
        self._receipts = dict(known.receipts)
        self._recalled: set[int] = set()
        self._carrying: dict[str, list[tuple[LogRow, Sequence[str]]]] = {}  # by file: messages of this batch

    def run(self, items: Sequence[Item]) -> None:
        """Decide on every item."""
        for item in items:
            if isinstance(item, SessionEvent):
                self._changed(item)
                continue
            try:
                self._take(item)
            except TlimError as refusal:
                self.events.append(refusal_of(item, refusal, self.newest))

    def _take(self, message: ArrivedMessage) -> None:
        envelope = message.envelope
        if envelope.msg_time is None:
            envelope = envelope.model_copy(update={"msg_time": str(message.received_at)})
        place = self._places.get((message.sender, envelope.msg_id))
        if place is not None:
            self._require_same(envelope, place)
            self._tell(message, envelope, place, _NOBODY, is_news=False)
            return
        effect = REGISTRY[envelope.msg_type].effect
        roster = None
        if envelope.session_id is not None:
            roster = self._roster(envelope.session_id, message.sender, writes=effect is Effect.CHAT)
        match effect:
            case Effect.CHAT:
                self._keep_chat(message, envelope, roster)
            case Effect.RECEIPT:
                self._report(message, envelope, roster)
            case Effect.RECALL:
                self._recall(message, envelope, roster)
            case Effect.NOTICE | Effect.AUDIT:
                raise TlimError(ErrorCode.MSG_TYPE_INVALID, "it is sent by the server only", field="msg_type")
            case other:
                assert_never(other)

    def _require_same(self, envelope: Envelope, place: Place) -> None:
        """Raise unless the message equals the stored message with its msg_id; a recalled one has no body to compare."""
        if place.may_be(envelope):
            sent = self._sent.get(place.seq)
            if place.is_recalled or (sent is not None and same_json(sent, write_json(envelope.body))):
                return
        detail = f"msg_id {quoted(envelope.msg_id)} is that of another message of yours, give each its own"
        raise TlimError(ErrorCode.FIELD_INVALID, detail, field="msg_id")

    def _keep_chat(self, message: ArrivedMessage, envelope: Envelope, roster: Roster | None) -> None:
        conversation_id = envelope.conversation_id
        is_first = roster is None and conversation_id not in self._conversations
        if is_first:
            self._require_receiver(envelope.msg_to)
        for file_id in envelope.file_ids:
            self._require_file(file_id, message.sender)
        if is_first:
            self._conversations.add(conversation_id)
            self.writes.conversations.append(conversation_id)
        self._keep(message, envelope, conversation_id, to_peers(envelope, roster), is_news=True)

    def _require_receiver(self, receiver: str | None) -> None:
        """Raise unless the receiver of a first message exists."""
        if self._known.users is None:
            raise TlimError(ErrorCode.UNAVAILABLE, "the users directory cannot be reached, try again", field="to")
        if receiver not in self._known.users:
            raise TlimError(ErrorCode.USER_UNKNOWN, f"{receiver} is not a user here", field="to")

    def _require_file(self, file_id: str, sender: str) -> None:
        """Raise unless the sender uploaded the file, or may see an unrecalled message that carries it."""
        facts = self._known.files
        if facts is None:
            raise TlimError(ErrorCode.UNAVAILABLE, "the files cannot be asked for, try again", field="file_id")
        if file_id in facts.existing:
            if (file_id, sender) in facts.owned or self._has_seen(file_id, sender):
                return
            if self._known.shared is None:
                detail = f"it takes too long to find who shared {quoted(file_id)} with you, try again"
                raise TlimError(ErrorCode.UNAVAILABLE, detail, field="file_id")
        detail = f"{quoted(file_id)} is no file of yours, and nobody shared it with you"
        raise TlimError(ErrorCode.FILE_UNKNOWN, detail, field="file_id")

    def _has_seen(self, file_id: str, user_id: str) -> bool:
        shared = self._known.shared or {}
        if not self._recalled.issuperset(shared.get((file_id, user_id), ())):
            return True
        carrying = self._carrying.get(file_id, ())
        return any(
            row.seq not in self._recalled and (user_id == row.sender or user_id in receivers)
            for row, receivers in carrying
        )

    def _report(self, message: ArrivedMessage, envelope: Envelope, roster: Roster | None) -> None:
        """Record what the reporter received or read; others get an envelope with only what is new in it."""
        reporter, has_read = message.sender, REGISTRY[envelope.msg_type].says_read
        news: list[Named] = []
        for named in reported(self._named(message, envelope, roster), reporter):
            fresh = tuple(place for place in named.places if self._record_receipt(place, reporter, has_read=has_read))
            if fresh:
                news.append(Named(named.element, fresh))
        audible = to_peers(envelope, roster) if has_read else to_authors(news)
        if roster is not None and (roster.is_deleted or reporter not in roster.members):
            audible = TO_NOBODY  # it lowers the reporter's own unread count, and is of no use to anybody else
        elif roster is not None and has_read and len(roster.members) > self._read_to_all:
            audible = TO_NOBODY  # the authors hear it in a moment, together with others (gathering.py)
            self.writes.untold += [
                (place.seq, reporter) for one in news for place in one.places if place.sender in roster.members
            ]
        self._tell_news(message, envelope, news, audible)

    def _record_receipt(self, place: Place, reporter: str, *, has_read: bool) -> bool:
        """Note a receipt and return whether it says anything new; to have read a message is to have received it."""
        key = (place.seq, reporter)
        known = self._receipts.get(key)
        if known is not None and known >= has_read:
            return False
        self._receipts[key] = self.writes.receipts[key] = has_read
        if has_read:
            cursor = (reporter, place.conversation_id)
            self.writes.cursors[cursor] = max(place.seq, self.writes.cursors.get(cursor, 0))
        return True

    def _recall(self, message: ArrivedMessage, envelope: Envelope, roster: Roster | None) -> None:
        """Recall all named messages or none; messages that were recalled before are not news."""
        named = recalled(
            self._named(message, envelope, roster),
            message.sender,
            arrived_at=message.arrived_at,
            window=self._recall_window,
        )
        news: list[Named] = []
        for one in named:
            place = self._places[message.sender, one.msg_id]
            if not place.is_recalled:
                self._places[message.sender, one.msg_id] = place._replace(is_recalled=True)
                self.writes.recalled.append(place.seq)
                self._recalled.add(place.seq)
                news.append(one)
        audible = to_peers(envelope, roster)
        if roster is not None:
            audible = to_readers(roster, message.sender, self._readers(envelope.conversation_id, roster, news))
        self._tell_news(message, envelope, news, audible)

    def _readers(self, session_id: str, roster: Roster, named: Sequence[Named]) -> list[str]:
        """Return all people who can see at least one of the messages, members first."""
        seqs = sorted(place.seq for one in named for place in one.places)
        people = dict.fromkeys((*roster.members, *self._leavers.get(session_id, ())))
        return [user_id for user_id in people if self._could_see(seqs, session_id, user_id, roster)]

    def _tell_news(self, message: ArrivedMessage, envelope: Envelope, news: Sequence[Named], audible: Audible) -> None:
        sent = None
        if not news:
            audible = TO_NOBODY
        elif len(news) < len(envelope.body):
            sent = write_json(envelope.body)
            envelope = envelope.model_copy(update={"body": [one.element for one in news]})
        self._keep(message, envelope, envelope.conversation_id, audible, sent, is_news=bool(news))

    def _named(self, message: ArrivedMessage, envelope: Envelope, roster: Roster | None) -> list[Named]:
        """Return the chat messages that each element names: of its conversation, and visible to its sender."""
        me, conversation_id = message.sender, envelope.conversation_id
        named: list[Named] = []
        for element in envelope.body:
            msg_id = element["msg_id"]
            senders: Collection[str] = {me, envelope.msg_to or ""}
            if roster is not None:
                senders = self._senders.get((conversation_id, msg_id), ())
            places = [self._places.get((sender, msg_id)) for sender in senders]
            seen = [
                place
                for place in places
                if place is not None and place.is_chat and place.conversation_id == conversation_id
                and (roster is None or self._could_see((place.seq,), conversation_id, me, roster))
            ]  # fmt: skip
            named.append(Named(element, tuple(seen)))
        return named

    def _could_see(self, seqs: Sequence[int], session_id: str, user_id: str, roster: Roster) -> bool:
        """Tell whether somebody could see any of the messages of a session; `seqs` rise.

        1,000 messages may be recalled at once in a group of 10,000. So nobody is compared with each message.
        """
        joined_seq = roster.members.get(user_id)
        if seqs and joined_seq is not None and joined_seq <= seqs[-1]:
            return True
        spans = self._earlier.get((session_id, user_id), ())
        return any(bisect_left(seqs, span.joined_seq) < bisect_right(seqs, span.left_seq) for span in spans)

    def _roster(self, session_id: str, sender: str, *, writes: bool) -> Roster:
        """Return the session that `sender` writes to, or sends a receipt or recall about; see `_admitted`.

        session-api is asked before any sender is refused, for every session alike. Otherwise the time of an answer
        would tell a stranger which sessions exist.
        """
        try:
            return self._admitted(session_id, sender, writes=writes)
        except TlimError:
            if session_id not in self._known.answers:
                self.doubts.add(session_id)
                raise
        answer = self._known.answers[session_id]
        if answer is None:
            raise TlimError(ErrorCode.UNAVAILABLE, "the session cannot be asked for, try again", field="session_id")
        if answer.event is not None:
            self._changed(answer.event, is_in_order=False)
        return self._admitted(session_id, sender, writes=writes)

    def _admitted(self, session_id: str, sender: str, *, writes: bool) -> Roster:
        """Return the session if the sender may do this: members of an open session write; past members too may report.

        Receipts and recalls are also taken after a session was deleted. A stranger gets the same SESSION_UNKNOWN for an
        open, a deleted and a missing session. A past member who writes to an open session gets NOT_ALLOWED.
        """
        roster = self.rosters.get(session_id)
        is_in = roster is not None and sender in roster.members
        was_in = bool(self._earlier.get((session_id, sender)))
        if roster is not None and ((is_in and not roster.is_deleted) or (not writes and (is_in or was_in))):
            return roster
        if roster is not None and was_in and not is_in and not roster.is_deleted:
            raise TlimError(ErrorCode.NOT_ALLOWED, "you are not in this session", field="session_id")
        sentence = "the session is deleted" if is_in else "there is no such session"
        raise TlimError(ErrorCode.SESSION_UNKNOWN, sentence, field="session_id")

    def _changed(self, event: SessionEvent, *, is_in_order: bool = True) -> None:
        """Apply a session event, unless this version or a newer one was applied before."""
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
        self.writes.rows.append(row._replace(sender=SERVER))
        notice = StoredMessage(seq=seq, stored_at=self.writes.now, recipients=change.audience, envelope=envelope)
        self.events.append(notice)

    def _write_members(self, session_id: str, change: RosterChange, seq: int) -> None:
        for user_id in change.joined:
            self.writes.members[session_id, user_id, seq] = None
        for user_id, joined_seq in change.left.items():
            self.writes.members[session_id, user_id, joined_seq] = seq
            over = self._earlier.get((session_id, user_id), ())
            self._earlier[session_id, user_id] = (*over, Span(joined_seq, seq))
            self._leavers.setdefault(session_id, set()).add(user_id)

    def _keep(
        self,
        message: ArrivedMessage,
        envelope: Envelope,
        conversation_id: str,
        audible: Audible,
        sent: str | None = None,
        *,
        is_news: bool,
    ) -> None:
        row = self._row(next(self._seqs), envelope, conversation_id, audible, message.location)
        row = row._replace(sent_body=sent)
        self._sent[row.seq] = sent or row.body
        self.writes.rows.append(row)
        self.writes.addressees += [(user_id, row.seq) for user_id in audible.listed]
        if REGISTRY[envelope.msg_type].carries_file:
            self._carry(row, envelope.file_ids, audible.recipients)
        place = Place(
            row.seq,
            self.writes.now,
            row.conversation_id,
            row.sender,
            row.msg_id,
            row.msg_type,
            is_chat=row.is_chat,
            is_recalled=False,
        )
        self._places[row.sender, row.msg_id] = place
        if audible.audience is Audience.MEMBERS:
            key = (row.conversation_id, row.msg_id)
            self._senders[key] = (*self._senders.get(key, ()), row.sender)
        self._tell(message, envelope, place, audible.recipients, is_news=is_news)

    def _carry(self, row: LogRow, file_ids: Sequence[str], receivers: Sequence[str]) -> None:
        self.writes.files += [(file_id, row.seq) for file_id in file_ids]
        for file_id in file_ids:
            self._carrying.setdefault(file_id, []).append((row, receivers))

    def _tell(
        self,
        message: ArrivedMessage,
        envelope: Envelope,
        place: Place,
        recipients: Sequence[str],
        *,
        is_news: bool,
    ) -> None:
        """Publish a delivery; without `recipients` it is only the sender's confirmation."""
        event = StoredMessage(
            seq=place.seq,
            stored_at=place.stored_at,
            recipients=list(recipients),
            envelope=envelope,
            reply_to=message.reply_to,
            stanza_id=message.stanza_id,
            received_at=message.received_at,
            after_seq=None if recipients else self.newest,
            is_news=is_news,
            via=message.via,
        )
        self.events.append(event)

    def _row(self, seq: int, envelope: Envelope, conversation_id: str, audible: Audible, location: str) -> LogRow:
        self.newest = seq
        return LogRow(
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
            stored_at=self.writes.now,
        )
