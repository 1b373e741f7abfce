"""A recorder among fakes: a log in dictionaries, a session-api that answers, and everything that was published."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from message_store.errors import DirectoryUnavailable, ItemRefused, StatementTooSlow, SurveyOutdated
from message_store.gathering import Gathering
from message_store.leadership import STATEMENT_TIMEOUT_S
from message_store.service import Recorder
from message_store.values import (
    AnsweredSession,
    ArrivedMessage,
    FileFacts,
    Item,
    LogRow,
    PendingRead,
    Place,
    Progress,
    Roster,
    Span,
    Writes,
)
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import OutEvent, RejectedMessage, SessionEvent, StoredMessage
from tlim_protocol.registry import REGISTRY, MsgType
from tlim_runtime.outages import BrokerUnavailable

NOW = 1_700_000_000_000
EXAMPLE_FILE = REGISTRY[MsgType.IMAGE].example["file_id"]
WINDOW = 120_000
READ_TO_ALL = 5


class FakeArchive:
    """The tables in dictionaries; refuses rows with a msg_id in `bad`, and takes too long for those in `slow`.

    Somebody else is always faster with those in `outdated`, and `overtaken` times with sessions.
    """

    def __init__(self) -> None:
        self.rows: list[LogRow] = []
        self.made: set[str] = set()
        self.sessions: dict[str, SessionEvent] = {}
        self.members: dict[tuple[str, str, int], int | None] = {}
        self.files: list[tuple[str, int]] = []
        self.addressees: list[tuple[str, int]] = []
        self.read: dict[tuple[int, str], bool] = {}
        self.untold: list[tuple[int, str]] = []
        self.cursors: dict[tuple[str, str], int] = {}
        self.recalled: list[int] = []
        self.bad: set[str] = set()
        self.outdated: set[str] = set()
        self.overtaken = 0
        self.slow: set[str] = set()
        self.slow_sessions = False
        self.slow_files = False
        self.cancelled = 0
        self.change = 0
        self.ahead: set[int] = set()
        self.rosters_read: list[set[str]] = []
        self.sent_read: list[int] = []
        self.files_read: list[tuple[str, str]] = []
        self.is_locked = False
        self._last = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        self.is_locked = True
        try:
            yield
        finally:
            self.is_locked = False

    async def draw(self, count: int) -> list[int]:
        first, self._last = self._last + 1, self._last + count
        return list(range(first, first + count))

    async def conversations(self, conversation_ids: Collection[str]) -> set[str]:
        return self.made & set(conversation_ids)

    async def rosters(self, session_ids: Collection[str]) -> dict[str, Roster]:
        self.rosters_read.append(set(session_ids))
        return {
            one: Roster(
                event.version,
                event.deleted,
                {user: joined for (session, user, joined), left in self.members.items()
                 if session == one and left is None},
            )
            for one, event in self.sessions.items() if one in session_ids
        }  # fmt: skip

    async def places(self, keys: Collection[tuple[str, str]]) -> Sequence[Place]:
        return [self._place(row) for row in self.rows if (row.sender, row.msg_id) in keys]

    async def places_in(self, keys: Collection[tuple[str, str]]) -> Sequence[Place]:
        return [self._place(row) for row in self.rows if (row.conversation_id, row.msg_id) in keys]

    def _place(self, row: LogRow) -> Place:
        return Place(
            row.seq, row.stored_at, row.conversation_id, row.sender, row.msg_id, row.msg_type, row.is_chat,
            row.seq in self.recalled,
        )  # fmt: skip

    async def sent_bodies(self, limits: Mapping[int, int]) -> dict[int, str]:
        bodies = {row.seq: row.sent_body or row.body for row in self.rows if row.seq in limits}
        found = {seq: body for seq, body in bodies.items() if len(body.encode()) <= limits[seq]}
        self.sent_read += found
        return found

    async def earlier_spans(self, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], tuple[Span, ...]]:
        return {
            key: tuple(Span(joined, left) for (session, user, joined), left in self.members.items()
                       if (session, user) == key and left is not None)
            for key in keys
        }  # fmt: skip

    async def spans_left_since(self, seqs: Mapping[str, int]) -> dict[tuple[str, str], tuple[Span, ...]]:
        keys = {(session, user) for session, user, _ in self.members if session in seqs}
        spans = await self.earlier_spans(keys)
        left = {key: tuple(span for span in spans[key] if span.left_seq >= seqs[key[0]]) for key in keys}
        return {key: found for key, found in left.items() if found}

    async def receipts(self, keys: Collection[tuple[int, str]]) -> dict[tuple[int, str], bool]:
        return {key: self.read[key] for key in keys if key in self.read}

    async def shared_files(self, asks: Collection[tuple[str, str]]) -> dict[tuple[str, str], Collection[int]] | None:
        self.files_read += sorted(asks)
        if self.slow_files:
            return None
        carrying = {
            (file_id, user): {row.seq for row in self.rows if (file_id, row.seq) in self.files
                              and row.seq not in self.recalled and self._sees(user, row)}
            for file_id, user in asks
        }  # fmt: skip
        return {ask: seqs for ask, seqs in carrying.items() if seqs}

    def _sees(self, user: str, row: LogRow) -> bool:
        return user in {row.sender, row.recipient} or any(
            (session, member) == (row.conversation_id, user) and joined <= row.seq and (left is None or row.seq <= left)
            for (session, member, joined), left in self.members.items()
        )

    async def changed_sessions(self, versions: Mapping[str, int | None]) -> Sequence[str]:
        if self.overtaken:
            self.overtaken -= 1
            return list(versions)
        assert self.is_locked
        kept = {one: event.version for one, event in self.sessions.items()}
        return [one for one, version in versions.items() if kept.get(one) != version]

    async def any_recalled(self, seqs: Collection[int]) -> bool:
        assert self.is_locked
        return bool({*seqs}.intersection(self.recalled))

    async def applied(self) -> Progress:
        return Progress(self.change, bool(self.ahead))

    async def note_applied(self, changes: Sequence[int]) -> None:
        self.ahead.update(change for change in changes if change > self.change)
        while self.change + 1 in self.ahead:
            self.change += 1
            self.ahead.discard(self.change)

    async def write(self, writes: Writes) -> None:
        if refused := self.bad.intersection(row.msg_id for row in writes.rows):
            raise ItemRefused(f"no room for {refused.pop()}")
        if outdated := self.outdated.intersection(row.msg_id for row in writes.rows):
            raise SurveyOutdated(f"{outdated.pop()} is there")
        if self.slow.intersection(row.msg_id for row in writes.rows) or (self.slow_sessions and writes.sessions):
            self.cancelled += 1
            raise StatementTooSlow("canceling statement due to statement timeout")
        assert not {row.seq for row in self.rows}.intersection(row.seq for row in writes.rows)
        self.rows += writes.rows
        self.made |= set(writes.conversations)
        self.sessions.update(writes.sessions)
        self.members.update(writes.members)
        self.files += writes.files
        self.addressees += writes.addressees
        self.read.update(writes.receipts)
        self.untold += writes.untold
        self.cursors.update(writes.cursors)
        self.recalled += writes.recalled

    async def has_untold(self) -> bool:
        return bool(self.untold)

    async def take_untold(self, limit: int) -> list[PendingRead]:
        taken, self.untold = self.untold[:limit], self.untold[limit:]
        rows = {row.seq: row for row in self.rows}
        return [PendingRead(rows[seq].conversation_id, rows[seq].sender, rows[seq].msg_id, user) for seq, user in taken]


class FakeSessionApi:
    """Knows bob and alice; `users = None` and `is_away` are outages. Keeps files too, all of them alice's."""

    def __init__(self) -> None:
        self.users: set[str] | None = {"alice", "bob"}
        self.questions: list[tuple[set[str], set[str]]] = []
        self.told: dict[str, SessionEvent] = {}
        self.is_away = False
        self.asked_sessions: list[set[str]] = []
        self.heard: set[str] = set()
        self.uploads: dict[str, str] | None = {"f1": "alice", "f2": "alice", EXAMPLE_FILE: "alice"}

    async def files(self, asks: Collection[tuple[str, str]]) -> FileFacts | None:
        if self.uploads is None:
            return None
        existing = {file_id for file_id, _ in asks if file_id in self.uploads}
        return FileFacts(existing, {ask for ask in asks if self.uploads.get(ask[0]) == ask[1]})

    async def known(self, *, seen: Collection[str], ask: Collection[str]) -> set[str]:
        self.questions.append((set(seen), set(ask)))
        if self.users is None:
            raise DirectoryUnavailable
        return self.users & set(ask)

    def heard_of(self, session_ids: Collection[str]) -> None:
        self.heard.update(session_ids)

    async def sessions(self, session_ids: Collection[str]) -> Mapping[str, AnsweredSession | None]:
        self.asked_sessions.append(set(session_ids))
        return {one: None if self.is_away else AnsweredSession(self.told.get(one)) for one in session_ids}


class FakePublication:
    """Remembers what was published."""

    def __init__(self) -> None:
        self.seqs: Sequence[int] = ()
        self.seq = 0
        self.events: list[OutEvent] = []
        self.is_broken = False
        self.restored = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        yield

    async def restore(self) -> None:
        self.restored += 1

    def require_certainty(self) -> None:
        """Nothing was lost."""

    async def follow(self, seqs: Sequence[int]) -> None:
        assert not self.seqs
        self.seqs = seqs

    async def publish(self, events: Sequence[OutEvent]) -> None:
        last, self.seqs = self.seqs[-1], ()
        if self.is_broken:
            raise BrokerUnavailable
        self.events += events
        self.seq = last


class FakeCounters:
    """Counts."""

    def __init__(self) -> None:
        self.total = 0
        self.codes: list[ErrorCode] = []
        self.times: list[tuple[int, int, int]] = []

    def stored(self, types: Mapping[str, int]) -> None:
        self.total += sum(types.values())

    def committed(self, items: Sequence[Item]) -> None:
        """Nothing is counted then."""

    def recorded(self, items: Sequence[Item], committed: int, published: int) -> None:
        self.times.append((len(items), committed, published))

    def rejected(self, code: ErrorCode) -> None:
        self.codes.append(code)


class Bench:
    """A recorder among fakes; its time passes only while a statement is waited for that is cancelled in the end."""

    def __init__(self) -> None:
        self.archive = FakeArchive()
        self.session_api = FakeSessionApi()
        self.publication = FakePublication()
        self.counters = FakeCounters()
        self.now = NOW
        self.recorder = Recorder(
            self.archive, self.session_api, self.publication, self.counters, now=lambda: self.now,
            recall_window=WINDOW, read_to_all=READ_TO_ALL, timer=lambda: STATEMENT_TIMEOUT_S * self.archive.cancelled,
        )  # fmt: skip
        self.gathering = Gathering(self.archive, self.publication, lambda: self.now)

    async def record(self, *items: ArrivedMessage | SessionEvent) -> list[str | None]:
        return await self.recorder.record(items)

    async def outcome(self, *items: ArrivedMessage | SessionEvent) -> list[Any]:
        """Record a batch and return what it said: recipients of what was stored, codes of what was refused."""
        before = len(self.publication.events)
        assert set(await self.record(*items)) <= {None}
        events = self.publication.events[before:]
        return [event.recipients if isinstance(event, StoredMessage) else event.code for event in events]

    @property
    def stored(self) -> list[StoredMessage]:
        return [event for event in self.publication.events if isinstance(event, StoredMessage)]

    @property
    def rejected(self) -> list[RejectedMessage]:
        return [event for event in self.publication.events if isinstance(event, RejectedMessage)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def new_bench() -> type[Bench]:
    return Bench


def accepted_message(
    msg_id: str = "m1", msg_type: MsgType = MsgType.TEXT, sender: str = "alice", **envelope: Any
) -> ArrivedMessage:
    """A message as the bridge accepts it, by default from alice to bob."""
    received_at = envelope.pop("received_at", NOW - 5)
    arrived_at = envelope.pop("arrived_at", NOW - 5)
    traceparent = envelope.pop("traceparent", None)
    fields: dict[str, Any] = {
        "msg_from": sender, "msg_to": "bob" if sender == "alice" else "alice", "msg_time": "1",
        "body": [dict(REGISTRY[msg_type].example)],
    }  # fmt: skip
    return ArrivedMessage(
        sender=sender,
        reply_to=f"{sender}@im.example/web",
        stanza_id="s1",
        location="web",
        received_at=received_at,
        arrived_at=arrived_at,
        traceparent=traceparent,
        envelope=Envelope(msg_id=msg_id, msg_type=msg_type, **{**fields, **envelope}),
    )


@pytest.fixture(name="accepted")
def accepted_fixture() -> Callable[..., ArrivedMessage]:
    return accepted_message


def group_message(msg_id: str, sender: str = "alice", session_id: str = "s1") -> ArrivedMessage:
    """A text to a session."""
    body = [{"session_id": session_id, "text": f"text of {msg_id}"}]
    return accepted_message(msg_id, MsgType.GROUP_TEXT, sender, msg_to=None, body=body)


def report(
    msg_id: str,
    *names: str,
    sender: str = "bob",
    msg_type: MsgType = MsgType.RECEIVED,
    session_id: str | None = None,
    **changes: Any,
) -> ArrivedMessage:
    """A receipt or recall that names messages, by default bob's to alice."""
    mark = {} if session_id is None else {"session_id": session_id}
    body = [{"msg_id": name, **mark} for name in names]
    if session_id is not None:
        changes.setdefault("msg_to", None)
    return accepted_message(msg_id, msg_type, sender, body=body, **changes)


@pytest.fixture(name="report")
def report_fixture() -> Callable[..., ArrivedMessage]:
    return report


@pytest.fixture(name="to_group")
def group_fixture() -> Callable[..., ArrivedMessage]:
    return group_message


def session_event(version: int, *subscribers: str, session_id: str = "s1", **changes: Any) -> SessionEvent:
    """What session-api tells of a session, made and changed by alice."""
    fields: dict[str, Any] = {
        "msg_type": MsgType.SESSION_ADDED if version == 1 else MsgType.SESSION_CHANGED,
        "session_name": "the three", "session_type": 0, "session_user": "alice", "change": version, "actor": "alice",
        "at": NOW - 10, "added": [], "removed": [], "deleted": False,
    }  # fmt: skip
    return SessionEvent(session_id=session_id, version=version, subscribers=list(subscribers), **{**fields, **changes})


@pytest.fixture(name="session")
def session_fixture() -> Callable[..., SessionEvent]:
    return session_event
