"""What tlim promises, as a few lists in memory: who sees what, what is unread, what is refused."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import REGISTRY, Effect, MsgType

from tests.e2e.views import Conversation, Entry, Notice, Overview, Seen, Session


class Model:
    """The promise as a model; every change returns the code with which it is refused, or None."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.users = tuple(names)
        self.away: set[str] = set()
        self.log: list[Entry] = []
        self.sessions: dict[str, Session] = {}
        self.receipts: dict[tuple[int, str], MsgType] = {}
        self.cursors: dict[tuple[str, Conversation], int] = {}

    # --- changes ---------------------------------------------------------------------------------------------------

    def write(self, envelope: Envelope) -> ErrorCode | None:
        """A user writes to another user, or into a session."""
        sender, session_id = envelope.msg_from, envelope.session_id
        if session_id is None:
            people = frozenset({sender, envelope.msg_to or ""})
            self._append(people, sender, envelope, people)
            return None
        refusal = self._refusal(session_id, sender)
        if refusal is None:
            self._append(session_id, sender, envelope, frozenset(self.sessions[session_id].members))
        return refusal

    def write_again(self, envelope: Envelope) -> ErrorCode | None:
        """A user sends a msg_id of theirs again: it must be the same message; a recalled one has no body to compare."""
        (entry,) = (
            one for one in self.log
            if one.envelope and (one.sender, one.envelope.msg_id) == (envelope.msg_from, envelope.msg_id)
        )  # fmt: skip
        first = entry.envelope
        assert first is not None
        is_there = (first.msg_type, first.conversation_id) == (envelope.msg_type, envelope.conversation_id)
        is_same = is_there and (entry.recalled or first.body == envelope.body)
        return None if is_same else ErrorCode.FIELD_INVALID

    def report(self, envelope: Envelope, places: Sequence[int]) -> ErrorCode | None:
        """A user reports messages of one conversation, by their places in the log, as received or read."""
        reporter, conversation = envelope.msg_from, self.log[places[0]].conversation
        if self._is_stranger(envelope.session_id, reporter):
            return ErrorCode.SESSION_UNKNOWN
        messages = [self.log[place] for place in places]
        if any(reporter == message.sender or reporter not in message.audience for message in messages):
            return ErrorCode.MSG_ID_UNKNOWN
        is_read = envelope.msg_type is MsgType.READ
        audience, news = frozenset({reporter}), []
        for place, message, element in zip(places, messages, envelope.body, strict=True):
            known = self.receipts.get((place, reporter))
            if known is None or (known is MsgType.RECEIVED and is_read):
                self.receipts[place, reporter] = envelope.msg_type
                if self._is_open(conversation, reporter):  # else nobody but the reporter has a use for it
                    audience |= self._others(message) if is_read else {message.sender}
                news.append(element)
        if is_read:
            cursor = (reporter, conversation)
            self.cursors[cursor] = max(*places, self.cursors.get(cursor, -1))
        told = envelope.model_copy(update={"body": news or envelope.body})
        self._append(conversation, reporter, told, audience, is_news=bool(news))
        return None

    def recall(self, envelope: Envelope, place: int) -> ErrorCode | None:
        """A user recalls the message at that place of the log."""
        author, message = envelope.msg_from, self.log[place]
        if self._is_stranger(envelope.session_id, author):
            return ErrorCode.SESSION_UNKNOWN
        if author not in message.audience:
            return ErrorCode.MSG_ID_UNKNOWN
        if author != message.sender:
            return ErrorCode.NOT_ALLOWED
        is_news = not message.recalled
        audience = message.audience if is_news else frozenset({author})  # whoever can still read it
        if is_news and self._is_open(message.conversation, author):
            audience |= self._others(message)
        message.recalled = True
        message.withheld_from |= message.waits_for
        self._append(message.conversation, author, envelope, audience, is_news=is_news)
        return None

    def make_session(self, session_id: str, creator: str, listed: Sequence[str]) -> None:
        """A user creates a session with other people; it gets the names of its members."""
        members = [creator, *listed]
        name = ",".join(self.names[user] for user in members)
        self.sessions[session_id] = Session(creator, members, name, places=dict.fromkeys(members, len(self.log)))
        self._notice(session_id, creator, added=members)

    def rename(self, session_id: str, who: str, name: str) -> ErrorCode | None:
        """A member renames a session; if the name is the same, nobody is told."""
        refusal = self._may_edit(session_id, who)
        if refusal is not None:
            return refusal
        session = self.sessions[session_id]
        if session.name != name:
            session.name = name
            self._notice(session_id, who)
        return None

    def add(self, session_id: str, who: str, newcomer: str) -> ErrorCode | None:
        """A member adds a person who is not in the session."""
        refusal = self._may_edit(session_id, who)
        if refusal is not None:
            return refusal
        session = self.sessions[session_id]
        session.members.append(newcomer)
        session.places[newcomer] = len(self.log)
        self._notice(session_id, who, added=[newcomer])
        return None

    def remove(self, session_id: str, who: str, leaver: str) -> ErrorCode | None:
        """A member leaves, or the leader removes them."""
        session, refusal = self.sessions[session_id], self._may_edit(session_id, who)
        if refusal is not None:
            return refusal
        if who not in {leaver, self.leader(session_id)}:
            return ErrorCode.NOT_ALLOWED
        session.members.remove(leaver)
        session.places[leaver], session.left_as[leaver] = len(self.log), session.name
        self._notice(session_id, who, removed=[leaver])
        return None

    def delete(self, session_id: str, who: str) -> ErrorCode | None:
        """The leader deletes a session."""
        refusal = self._may_edit(session_id, who)
        if refusal is not None:
            return refusal
        if who != self.leader(session_id):
            return ErrorCode.NOT_ALLOWED
        self.sessions[session_id].deleted = True
        self._notice(session_id, who)
        return None

    def come(self, user: str) -> None:
        """A user logs in with their first device, and gets the messages that wait for them."""
        self.away.discard(user)
        for entry in self.log:
            entry.waits_for.discard(user)

    def leave(self, user: str) -> None:
        """The last device of a user is gone."""
        self.away.add(user)

    # --- what is seen ----------------------------------------------------------------------------------------------

    def history(self, reader: str, conversation: Conversation) -> list[Seen]:
        """Return the messages of a conversation that a user sees, oldest first."""
        return [_seen(entry, reader) for entry in self._chats(reader, conversation)]

    def sync(self, reader: str) -> list[Seen]:
        """Return everything that concerns a user, in order."""
        return [_seen(entry, reader) for entry in self.log if reader in entry.audience]

    def conversations(self, reader: str) -> list[Conversation]:
        """Return a user's conversations, those with the newest event for the user first."""
        places: dict[Conversation, int] = {}
        for place, entry in enumerate(self.log):
            if entry.is_chat and reader in entry.audience:
                places[entry.conversation] = place
        for session_id, session in self.sessions.items():
            if reader in session.members:
                places[session_id] = max(session.places[reader], places.get(session_id, 0))
            elif reader in session.places:
                places[session_id] = session.places[reader]
        return sorted(places, key=lambda conversation: -places[conversation])

    def overview(self, reader: str, conversation: Conversation) -> Overview:
        """Return a conversation as a user's list shows it."""
        messages = self.history(reader, conversation)
        cursor = self.cursors.get((reader, conversation), -1)
        unread = sum(
            entry.sender != reader and not entry.recalled
            for place, entry in enumerate(self.log)
            if place > cursor and entry.is_chat and entry.conversation == conversation and reader in entry.audience
        )
        name, last = self.name(reader, conversation), messages[-1] if messages else None
        if not isinstance(conversation, str):
            return Overview(name, last, unread, None, left=False, deleted=False)
        session = self.sessions[conversation]
        if reader not in session.members:  # it stays as it was
            return Overview(name, last, unread, session.left_as[reader], left=True, deleted=False)
        return Overview(name, last, unread, session.name, left=False, deleted=session.deleted)

    def leader(self, session_id: str) -> str | None:
        """Return the leader, who may remove others and delete: the creator, or else the longest member."""
        session = self.sessions[session_id]
        return session.creator if session.creator in session.members else next(iter(session.members), None)

    def open_sessions(self, reader: str) -> list[str]:
        """Return the sessions of a user, the newest first."""
        return [
            session_id
            for session_id, session in reversed(self.sessions.items())
            if reader in session.members and not session.deleted
        ]

    def name(self, reader: str, conversation: Conversation) -> str:
        """Return what a user calls a conversation: the other person's user id, or the session id."""
        if isinstance(conversation, str):
            return conversation
        return next(iter(conversation - {reader}))

    def ledger(self, place: int) -> dict[str, MsgType | None]:
        """Return, for each receiver of a message, what they have reported, if anything."""
        message = self.log[place]
        return {user: self.receipts.get((place, user)) for user in message.audience - {message.sender}}

    def search(self, reader: str, text: str) -> list[str]:
        """Return the msg_ids of the messages with that text that a user sees, newest first."""
        return [
            entry.envelope.msg_id
            for entry in reversed(self.log)
            if entry.envelope and entry.is_chat and reader in entry.audience and not entry.recalled
            if any(text in str(element.get("text")) for element in entry.envelope.body)
        ]

    def sent_to(self, user: str, since: int = 0) -> dict[str, Entry]:
        """Return what the XMPP server is asked to deliver to a user, in order: msg_id → entry, without notices."""
        return {entry.envelope.msg_id: entry for entry in self.log[since:] if entry.envelope and user in entry.sent_to}

    def sent_by(self, user: str, since: int = 0) -> dict[str, Entry]:
        """Return what a user's other devices learn from the sending device, in order: msg_id → entry."""
        return {
            entry.envelope.msg_id: entry
            for entry in self.log[since:]
            if entry.envelope and entry.sender == user and entry.is_news
        }

    def order(self, conversation: Conversation) -> list[str]:
        """Return the msg_ids of a conversation, oldest first, without notices."""
        return [entry.envelope.msg_id for entry in self.log if entry.envelope and entry.conversation == conversation]

    @property
    def messages(self) -> list[int]:
        """The places of all messages between people."""
        return [place for place, entry in enumerate(self.log) if entry.is_chat]

    # --- rules -----------------------------------------------------------------------------------------------------

    def _refusal(self, session_id: str | None, who: str) -> ErrorCode | None:
        if session_id is None:
            return None
        session = self.sessions[session_id]
        if session.deleted:
            return ErrorCode.SESSION_UNKNOWN
        if who in session.members:
            return None
        return ErrorCode.NOT_ALLOWED if who in session.places else ErrorCode.SESSION_UNKNOWN

    def _is_stranger(self, session_id: str | None, who: str) -> bool:
        """Present and past members of a session may report and recall, also after it is deleted."""
        return session_id is not None and who not in self.sessions[session_id].places

    def _is_open(self, conversation: Conversation, who: str) -> bool:
        """Two people always talk; a session is open to its members until it is deleted."""
        return not isinstance(conversation, str) or self._refusal(conversation, who) is None

    def _may_edit(self, session_id: str, who: str) -> ErrorCode | None:
        """A stranger cannot tell a session from none."""
        return None if self._refusal(session_id, who) is None else ErrorCode.SESSION_UNKNOWN

    def _others(self, message: Entry) -> frozenset[str]:
        if isinstance(message.conversation, str):
            return frozenset(self.sessions[message.conversation].members)
        return message.conversation

    def _append(
        self,
        conversation: Conversation,
        sender: str,
        envelope: Envelope | None,
        audience: frozenset[str],
        *,
        is_news: bool = True,
        notice: Notice | None = None,
    ) -> None:
        entry = Entry(conversation, sender, envelope, audience, is_news, notice=notice)
        away = self.away & entry.sent_to
        if envelope is not None and REGISTRY[envelope.msg_type].effect is Effect.RECEIPT:
            entry.missed_by = frozenset(away)
        else:
            entry.waits_for |= away
        self.log.append(entry)

    def _notice(
        self, session_id: str, actor: str, *, added: Collection[str] = (), removed: Collection[str] = ()
    ) -> None:
        members = frozenset(self.sessions[session_id].members)
        notice = Notice(frozenset(added), frozenset(removed), members)
        self._append(session_id, actor, None, members.union(removed), notice=notice)

    def _chats(self, reader: str, conversation: Conversation) -> Iterator[Entry]:
        for entry in self.log:
            if entry.is_chat and entry.conversation == conversation and reader in entry.audience:
                yield entry


def _seen(entry: Entry, reader: str) -> Seen:
    if entry.envelope is None:
        assert entry.notice is not None
        return Seen(entry.sender, "", recalled=False, body=[entry.notice.told_to(reader)])
    body = [] if entry.recalled else entry.envelope.body
    return Seen(entry.sender, entry.envelope.msg_id, entry.recalled, body)
