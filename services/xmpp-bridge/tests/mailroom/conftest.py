"""A world in which only bridges are real, with a clock that jumps: the log, the XMPP server, NATS, the devices.

The server and the devices do what deploy/ and docs/wire-protocol.md promise, in an order that a seed decides.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from tlim_protocol.envelope import Envelope
from tlim_protocol.events import SeqsAnswer, StoredMessage
from tlim_protocol.identity import DELIVERY_SHARDS, delivery_shard
from tlim_protocol.mailboxes import (
    LiveAnswer,
    LivePerson,
    LiveQuestion,
    MailboxNote,
    MailboxNoted,
    MailboxNotes,
    MissedAnswer,
    MissedQuestion,
)
from tlim_protocol.registry import MsgType
from tlim_protocol.stanzas import TLIM_NS
from tlim_protocol.subjects import Rpc
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import Unavailable
from xmpp_bridge.catch_up import CatchUps
from xmpp_bridge.lanes import Gaps
from xmpp_bridge.mailbox import Notes
from xmpp_bridge.translate import BridgeAddresses

ADDRESSES = BridgeAddresses("im.example", "bridge.im.example")
EPOCH = 1_800_000_000.0
NOTICED_WITHIN_S = 120.0


@dataclass
class Mailbox:
    """A row of the store's table."""

    taken: int = 0
    sessions: list[str] = field(default_factory=list)
    live_since: float | None = None


class Stream:
    """JetStream's side of a shard's consumer: it outlives all bridges. A message's place in the stream is its seq."""

    def __init__(self) -> None:
        self.pieces: list[StoredMessage] = []
        self.done = 0  # so many of the oldest are acknowledged
        self.delivered = 0  # the newest place that was ever delivered
        self.pinned: object = None  # the session that gets messages
        self.news = asyncio.Event()
        self._acknowledged: set[int] = set()

    def publish(self, piece: StoredMessage) -> None:
        self.pieces.append(piece)
        self.news.set()

    def open(self, session: object) -> int:
        """Give everything that is not acknowledged to this session; return up to where some of it was delivered."""
        self.pinned = session
        floor = self.pieces[self.done - 1].seq if self.done else 0
        return self.delivered if floor < self.delivered else 0

    def go_back(self, first: int) -> None:
        """Deliver everything from this place on again, although it was acknowledged."""
        self._acknowledged = {place for place in self._acknowledged if place < first}
        self.done = min(self.done, sum(piece.seq < first for piece in self.pieces))

    def acknowledge(self, place: int) -> None:
        self._acknowledged.add(place)
        while self.done < len(self.pieces) and self.pieces[self.done].seq in self._acknowledged:
            self.done += 1


class Log:
    """message-store as the bridge sees it. It answers late, and with `losses` not at all."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.rows: list[StoredMessage] = []
        self.streams = [Stream() for _ in range(DELIVERY_SHARDS)]
        self.mailboxes: defaultdict[str, Mailbox] = defaultdict(Mailbox)
        self.terms = [0] * DELIVERY_SHARDS
        self.noted = [0] * DELIVERY_SHARDS
        self.losses = 0.02
        self.settled = [(0, 0.0)] * DELIVERY_SHARDS
        self.is_up = self.takes_notes = True

    def commit(self, recipients: Sequence[str], conversation: str) -> StoredMessage:
        seq = len(self.rows) + 1
        envelope = Envelope(
            msg_from="author",
            msg_id=f"m{seq}",
            msg_type=MsgType.GROUP_TEXT,
            body=[{"session_id": conversation, "text": "hello"}],
        )
        self.rows.append(StoredMessage(seq=seq, stored_at=1, recipients=list(recipients), envelope=envelope))
        for shard, stream in enumerate(self.streams):
            some = [user_id for user_id in recipients if delivery_shard(user_id) == shard]
            if some:
                stream.publish(self.rows[-1].model_copy(update={"recipients": some, "tells_sender": False}))
        return self.rows[-1]

    async def request(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
        assert timeout_s > 0
        await asyncio.sleep(self._chance.random() / 50)
        if not self.is_up or (subject == Rpc.MAILBOX_NOTE and not self.takes_notes):
            raise Unavailable("the store is away")
        answer = self._answer(subject, payload)
        await asyncio.sleep(self._chance.random() / 50)
        if self._chance.random() < self.losses:
            raise Unavailable("the answer is lost")
        return answer

    def _answer(self, subject: str, payload: bytes) -> bytes:
        if subject == Rpc.MAILBOX_MISSED:
            return self._missed(MissedQuestion.from_bytes(payload)).to_bytes()
        if subject == Rpc.MAILBOX_LIVE:
            return self._live(LiveQuestion.from_bytes(payload)).to_bytes()
        if subject == Rpc.MESSAGE_RECALLED:
            return SeqsAnswer(seqs=[]).to_bytes()
        notes = MailboxNotes.from_bytes(payload)
        shard = notes.shard
        if notes.term != self.terms[shard]:
            return MailboxNoted(is_outdated=True).to_bytes()
        assert notes.number is not None
        if notes.number <= self.noted[shard]:
            return MailboxNoted().to_bytes()
        self.noted[shard] = notes.number
        if (
            notes.settled_seq is not None
            and notes.settled_at is not None
            and notes.settled_seq > self.settled[shard][0]
        ):
            self.settled[shard] = notes.settled_seq, notes.settled_at / 1_000
        for note in notes.notes:
            self._note(note)
        return MailboxNoted().to_bytes()

    def _note(self, note: MailboxNote) -> None:
        box = self.mailboxes[note.user_id]
        if note.sessions and not note.is_stale:
            box.sessions = note.sessions
            if box.live_since is None or note.is_new:
                box.live_since = EPOCH + asyncio.get_running_loop().time()
            return
        settled_seq, settled_at = self.settled[delivery_shard(note.user_id)]
        is_settled = box.live_since is not None and box.live_since <= settled_at
        known = note.taken if note.taken is not None else settled_seq if is_settled else box.taken
        box.taken = max(box.taken, known)
        if note.at_most is not None:
            box.taken = min(box.taken, note.at_most)
        box.sessions, box.live_since = note.sessions, None

    def _live(self, question: LiveQuestion) -> LiveAnswer:
        shard = question.shard
        if question.term is None:
            self.terms[shard], self.noted[shard] = self.terms[shard] + 1, 0
        elif question.term != self.terms[shard]:
            return LiveAnswer(people=[], more=False, term=self.terms[shard], is_outdated=True)
        present = (name for name, box in self.mailboxes.items() if box.sessions and delivery_shard(name) == shard)
        names = sorted(name for name in present if name > question.after_user)
        people = [LivePerson(user_id=name, sessions=self.mailboxes[name].sessions) for name in names[:2]]
        return LiveAnswer(people=people, more=len(names) > 2, term=self.terms[shard])

    def _missed(self, question: MissedQuestion) -> MissedAnswer:
        after = self.mailboxes[question.user_id].taken if question.after is None else question.after
        rows = [row for row in self.rows[after:] if question.user_id in row.recipients]
        limit = min(question.limit, 7)
        page = [row.model_copy(update={"recipients": [question.user_id]}) for row in rows[:limit]]
        following, newest, more = page[-1].seq if page else after, len(self.rows), len(rows) > limit
        return MissedAnswer(
            events=page, next=following, more=more, up_to=following if more else max(newest, after), receipts=True
        )


@dataclass(eq=False)
class Device:
    """A session on the server, and the client behind it. `flight`: what the client has not got yet."""

    user_id: str
    session_id: str
    resumes: bool
    flight: list[int] = field(default_factory=list)
    got: list[int] = field(default_factory=list)
    written: int = 0
    is_cut: bool = False
    is_stale: bool = False
    is_hidden: bool = False  # the client has sent `unavailable`, and its stream goes on

    def write(self, seq: int) -> None:
        self.written = max(self.written, seq)
        if not self.is_cut or self.resumes:
            self.flight.append(seq)

    @property
    def confirmed(self) -> int | None:
        return min(self.flight) - 1 if self.flight else self.written or None


class Server:
    """The XMPP server with our module, and the bridge's connection to it."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._numbers = count(1)
        self.devices: list[Device] = []
        self.ever: list[Device] = []
        self.got: defaultdict[str, list[int]] = defaultdict(list)
        self.missed = 0
        self.has_module = True
        self.returned: set[tuple[str, int]] = set()  # of sessions that ended, and routed again
        self.faults: list[str] = []
        self.lines: list[Any] = []

    def of(self, user_id: str) -> list[Device]:
        return [device for device in self.devices if device.user_id == user_id]

    def come(self, user_id: str, *, resumes: bool) -> None:
        device = Device(user_id, f"session{next(self._numbers)}", resumes)
        self.devices.append(device)
        self.ever.append(device)
        self.say(device)

    def take(self, stanza: ET.Element) -> None:
        mark = stanza.find(f"{{{TLIM_NS}}}tlim")
        if mark is not None:
            self.route(stanza.get("to", "").partition("@")[0], int(mark.get("seq", "")))

    def route(self, user_id: str, seq: int) -> None:
        devices = [device for device in self.of(user_id) if not device.is_hidden]
        for device in devices:
            device.write(seq)
        if not devices:
            self.missed += 1
            self._tell(f"{user_id}@{ADDRESSES.domain}", f"<missed seq='{seq}'/>", is_gone=True)

    def read(self, device: Device) -> None:
        """The client gets what is in flight."""
        if not device.is_cut:
            device.got.extend(device.flight)
            self.got[device.user_id].extend(device.flight)
            device.flight.clear()

    def cut(self, device: Device) -> None:
        """The client's network is gone. Without resumption what is in flight is lost."""
        device.is_cut = True
        if not device.resumes:
            device.flight.clear()

    def notice(self, device: Device) -> None:
        """The server notices a cut connection."""
        if device not in self.devices or not device.is_cut:
            return
        if device.resumes:
            device.is_stale = True
            self.say(device)
        else:
            self.end(device, confirmed=None)

    def resume(self, device: Device) -> None:
        device.is_cut = device.is_stale = False
        self.read(device)
        self.say(device)

    def hide(self, device: Device) -> None:
        """The client wants no messages for now."""
        known = "" if device.confirmed is None else f" confirmed='{device.confirmed}'"
        self._tell_session(device, known, is_gone=True)
        device.is_hidden = True

    def show(self, device: Device) -> None:
        """It wants messages again, in the same session."""
        device.is_hidden = False
        self.say(device)

    def leave(self, device: Device) -> None:
        self.read(device)
        self.give_up(device)

    def give_up(self, device: Device) -> None:
        """The client has not resumed in time."""
        self.end(device, confirmed=device.confirmed)

    def end(self, device: Device, confirmed: int | None) -> None:
        self.devices.remove(device)
        known = "" if confirmed is None else f" confirmed='{confirmed}'"
        if not device.is_hidden:
            self._tell_session(device, known, is_gone=True)
        asyncio.get_running_loop().call_later(self._chance.random() / 10, self._return, device)

    def _return(self, device: Device) -> None:
        for seq in device.flight:
            self.returned.add((device.user_id, seq))
            self.route(device.user_id, seq)

    def say(self, device: Device, line: Any = None) -> None:
        known = "" if device.confirmed is None else f" confirmed='{device.confirmed}'"
        self._tell_session(device, f" stale='true'{known}" if device.is_stale else "", line, is_gone=False)

    def _tell_session(self, device: Device, attributes: str, line: Any = None, *, is_gone: bool) -> None:
        jid = f"{device.user_id}@{ADDRESSES.domain}/{device.session_id}"
        self._tell(jid, f"<session id='{device.session_id}'{attributes}/>", line, is_gone=is_gone)

    def _tell(self, sender: str, payload: str, only: Any = None, *, is_gone: bool) -> None:
        if not self.has_module:
            return
        kind = " type='unavailable'" if is_gone else ""
        payload = payload.replace(" ", f" xmlns='{TLIM_NS}' ", 1)
        for line in self.lines if only is None else [only]:
            line.said.put_nowait(ET.XML(f"<presence from='{sender}'{kind}>{payload}</presence>"))

    def connect(self, line: Any) -> None:
        self.lines.append(line)
        if self.has_module:
            line.said.put_nowait(ET.XML(f"<presence from='{ADDRESSES.domain}'><mailbox xmlns='{TLIM_NS}'/></presence>"))
        for device in self.devices:
            if not device.is_hidden:
                self.say(device, line)

    def die(self) -> None:
        """Everything in memory is lost. Devices notice it, and come again later."""
        self.devices.clear()
        for line in list(self.lines):
            line.lose()


@pytest.fixture
def simulated(jumping: Callable[[Coroutine[Any, Any, None]], None], leasing: SimpleNamespace) -> SimpleNamespace:
    """The parts of the world, and `run`: it runs a coroutine in that world's time."""
    return SimpleNamespace(**vars(leasing), Log=Log, Server=Server, run=jumping)


@pytest.fixture
def catch_ups_of() -> Callable[..., CatchUps]:
    """Make the catch-ups of a shard, with a store, a line and notes of the test."""

    def make(
        store: Any,
        line: Any,
        notes: Notes,
        slots: asyncio.Semaphore | None = None,
        turn: asyncio.Lock | None = None,
    ) -> CatchUps:
        return CatchUps(
            store,
            line,
            notes=notes,
            turn=turn or asyncio.Lock(),
            gaps=Gaps(),
            slots=slots or asyncio.Semaphore(1),
            addresses=ADDRESSES,
            metrics=Metrics(),
        )

    return make
