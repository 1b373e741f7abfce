"""Looking up what a batch refers to, before its plan is made: in the tables, and by asking the other services."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tlim_protocol.events import AcceptedMessage, SessionEvent
from tlim_protocol.lenient import write_json
from tlim_protocol.registry import REGISTRY, Effect

from message_store.errors import DirectoryUnavailable
from message_store.rosters import RosterCache
from message_store.values import AnsweredSession, FileFacts, Item, Known, Place, Roster, Span

_AS_LONG = 2
"""The stored body may be this many times longer than a resend, in bytes, and still be equal: JSON can escape a
character or write a number in another way, but that does not double the length."""


class SurveyedTables(Protocol):
    """Where messages are kept (archive_repository.Archive)."""

    async def conversations(self, conversation_ids: Collection[str], /) -> set[str]:
        """Return those that exist."""

    async def rosters(self, session_ids: Collection[str], /) -> dict[str, Roster]:
        """Return the rosters of those sessions that are known."""

    async def places(self, keys: Collection[tuple[str, str]], /) -> Sequence[Place]:
        """Return the rows with these senders and msg_ids."""

    async def sent_bodies(self, limits: Mapping[int, int], /) -> dict[int, str]:
        """Return, by seq, the body as it was sent; without rows where it has more bytes than their limit."""

    async def places_in(self, keys: Collection[tuple[str, str]], /) -> Sequence[Place]:
        """Return the rows in these conversations with these msg_ids."""

    async def earlier_spans(self, keys: Collection[tuple[str, str]], /) -> dict[tuple[str, str], tuple[Span, ...]]:
        """Return the memberships that are over, by conversation and user."""

    async def spans_left_since(self, seqs: Mapping[str, int], /) -> dict[tuple[str, str], tuple[Span, ...]]:
        """Return, by conversation and user, the memberships that ended at or after the seq given for a conversation."""

    async def shared_files(self, asks: Collection[tuple[str, str]], /) -> dict[tuple[str, str], Collection[int]] | None:
        """Return, by file and user, messages with the file that the user may see; None: it takes too long to look."""

    async def receipts(self, keys: Collection[tuple[int, str]], /) -> dict[tuple[int, str], bool]:
        """Return which messages users have received, and whether they have read them."""


class SurveyedServices(Protocol):
    """Who exists, and who is in which session (directory.ServiceDirectory)."""

    async def known(self, *, seen: Collection[str], ask: Collection[str]) -> set[str]:
        """Return those of `ask` that exist; raises DirectoryUnavailable."""

    async def sessions(self, session_ids: Collection[str], /) -> Mapping[str, AnsweredSession | None]:
        """Return session-api's answer about each session, None where there was no answer."""

    def heard_of(self, session_ids: Collection[str], /) -> None:
        """Note that these sessions exist or existed."""

    async def files(self, asks: Collection[tuple[str, str]], /) -> FileFacts | None:
        """Return file-api's answer about files and the users who want to send them, None without an answer."""


@dataclass
class Mentions:
    """Everything that the items of a batch name."""

    keys: set[tuple[str, str]] = field(default_factory=set)  # sender and msg_id: resends, receipts and recalls of 1:1
    in_sessions: set[tuple[str, str]] = field(default_factory=set)  # session and msg_id: receipts and recalls of groups
    files: set[tuple[str, str]] = field(default_factory=set)  # file and sender
    commands: list[AcceptedMessage] = field(default_factory=list)  # receipts and recalls
    directs: set[tuple[str, str, str]] = field(default_factory=set)  # conversation, sender and receiver
    sessions: set[str] = field(default_factory=set)
    senders: set[tuple[str, str]] = field(default_factory=set)  # session and sender

    def add(self, item: Item) -> None:
        """Note what an item names."""
        if isinstance(item, SessionEvent):
            self.sessions.add(item.session_id)
            return
        envelope = item.envelope
        self.keys.add((item.sender, envelope.msg_id))
        session_id = envelope.session_id
        if session_id is not None:
            self.sessions.add(session_id)
            self.senders.add((session_id, item.sender))
        kind = REGISTRY[envelope.msg_type]
        if kind.carries_file:
            self.files |= {(file_id, item.sender) for file_id in envelope.file_ids}
        if not kind.is_chat:
            self._add_command(item)
        elif session_id is None:
            self.directs.add((envelope.conversation_id, item.sender, envelope.msg_to or ""))

    def _add_command(self, message: AcceptedMessage) -> None:
        envelope = message.envelope
        self.commands.append(message)
        for element in envelope.body:
            if envelope.session_id is not None:
                self.in_sessions.add((envelope.session_id, element["msg_id"]))
            else:
                self.keys |= {(message.sender, element["msg_id"]), (envelope.msg_to or "", element["msg_id"])}


class Survey:
    """Looks up what a batch refers to."""

    def __init__(self, archive: SurveyedTables, directory: SurveyedServices, rosters: RosterCache) -> None:
        self._archive = archive
        self._directory = directory
        self._rosters = rosters

    async def of(self, items: Sequence[Item]) -> Known:
        """Return what is known of everything that `items` name."""
        mentions = Mentions()
        for item in items:
            mentions.add(item)
        self._directory.heard_of({item.session_id for item in items if isinstance(item, SessionEvent)})
        known = Known()
        if mentions.sessions:
            known.sessions = mentions.sessions
            known.rosters = await self._session_rosters(mentions.sessions)
        if mentions.keys:
            known.places = {(one.sender, one.msg_id): one for one in await self._archive.places(mentions.keys)}
            known.sent = await self._sent(items, known.places)
        if mentions.commands:
            await self._look_up_named(mentions, known)
        if mentions.directs:
            known.conversations = await self._archive.conversations({one for one, _, _ in mentions.directs})
            known.users = await self._users(mentions, known.conversations)
        if mentions.files:
            known.files = await self._directory.files(mentions.files)
            undecided = _undecided(mentions.files, known.files)
            known.shared = await self._archive.shared_files(undecided) if undecided else {}
        if mentions.senders:
            known.earlier = await self._earlier(mentions, known)
        return known

    async def _sent(self, items: Sequence[Item], places: Mapping[tuple[str, str], Place]) -> dict[int, str]:
        """Look up the bodies that resends have to equal; skip stored bodies that are far longer than the resend."""
        limits: dict[int, int] = {}
        for item in items:
            if isinstance(item, SessionEvent):
                continue
            place = places.get((item.sender, item.envelope.msg_id))
            if place is not None and place.may_be(item.envelope):
                limit = _AS_LONG * len(write_json(item.envelope.body).encode())
                limits[place.seq] = max(limit, limits.get(place.seq, 0))
        return await self._archive.sent_bodies(limits) if limits else {}

    async def _look_up_named(self, mentions: Mentions, known: Known) -> None:
        if mentions.in_sessions:
            found = await self._archive.places_in(mentions.in_sessions)
            known.places = {**known.places, **{(one.sender, one.msg_id): one for one in found}}
            senders: dict[tuple[str, str], tuple[str, ...]] = {}
            for one in found:
                key = (one.conversation_id, one.msg_id)
                senders[key] = (*senders.get(key, ()), one.sender)
            known.senders = senders
        reports = {
            (place.seq, message.sender)
            for message in mentions.commands
            if REGISTRY[message.envelope.msg_type].effect is Effect.RECEIPT
            for place in _named_by(message, known)
        }
        if reports:
            known.receipts = await self._archive.receipts(reports)

    async def _earlier(self, mentions: Mentions, known: Known) -> dict[tuple[str, str], tuple[Span, ...]]:
        """Look up memberships that are over, of three kinds of people.

        These are senders of receipts and recalls, writers who are not in the session, and people who left after a
        message that is now recalled.
        """
        commanders = {(message.envelope.session_id or "", message.sender) for message in mentions.commands}
        people = {
            (session_id, sender)
            for session_id, sender in mentions.senders
            if (session_id, sender) in commanders
            or session_id not in known.rosters
            or sender not in known.rosters[session_id].members
        }
        spans = await self._archive.earlier_spans(people) if people else {}
        recalled = _recalled_since(mentions.commands, known.places)
        left = await self._archive.spans_left_since(recalled) if recalled else {}
        return {**left, **spans}

    async def _users(self, mentions: Mentions, existing: Collection[str]) -> Collection[str] | None:
        """Ask once per batch which receivers of first messages exist; None: no answer."""
        firsts = [direct for direct in mentions.directs if direct[0] not in existing]
        if not firsts:
            return ()
        try:
            return await self._directory.known(
                seen={sender for _, sender, _ in firsts}, ask={receiver for _, _, receiver in firsts}
            )
        except DirectoryUnavailable:
            return None

    async def _session_rosters(self, session_ids: Collection[str]) -> dict[str, Roster]:
        found = self._rosters.find(session_ids)
        missing = set(session_ids).difference(found)
        return {**found, **await self._archive.rosters(missing)} if missing else found


def _undecided(asks: Iterable[tuple[str, str]], facts: FileFacts | None) -> set[tuple[str, str]]:
    """Return the files and senders about which file-api's answer does not decide: the sender may have been sent it.

    Others are not looked up. A file can be in very many messages, and each of them may have to be looked at.
    """
    if facts is None:
        return set()
    return {ask for ask in asks if ask[0] in facts.existing and ask not in facts.owned}


def _recalled_since(commands: Iterable[AcceptedMessage], places: Mapping[tuple[str, str], Place]) -> dict[str, int]:
    """Return, by session, the seq of the oldest message that its own author recalls in this batch."""
    since: dict[str, int] = {}
    for message in commands:
        session_id = message.envelope.session_id
        if session_id is None or REGISTRY[message.envelope.msg_type].effect is not Effect.RECALL:
            continue
        for element in message.envelope.body:
            place = places.get((message.sender, element["msg_id"]))
            if place is not None and place.conversation_id == session_id and not place.is_recalled:
                since[session_id] = min(place.seq, since.get(session_id, place.seq))
    return since


def _named_by(message: AcceptedMessage, known: Known) -> Iterator[Place]:
    """Yield the messages of others that a receipt may mean."""
    envelope = message.envelope
    for element in envelope.body:
        senders: Iterable[str] = (envelope.msg_to or "",)
        if envelope.session_id is not None:
            senders = known.senders.get((envelope.session_id, element["msg_id"]), ())
        for sender in senders:
            place = known.places.get((sender, element["msg_id"]))
            if place is not None:
                yield place
