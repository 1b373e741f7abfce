"""A shard's deliveries between a made-up server and made-up people: what the tests of the slow lane share."""

import asyncio
import re
from collections.abc import Iterable, Sequence

import pytest
from tlim_protocol.envelope import Envelope
from tlim_protocol.events import OutEvent, SeqsAnswer, SeqsQuestion, StoredMessage
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import subject_out
from tlim_runtime.consumer import Incoming, Later, Verdict
from tlim_runtime.metrics import Metrics
from xmpp_bridge.backlog import Backlog
from xmpp_bridge.component import ComponentLost
from xmpp_bridge.culprits import Culprits
from xmpp_bridge.footprint import footprint
from xmpp_bridge.lanes import PORTIONS_AT_ONCE, Gaps
from xmpp_bridge.subscribers import OutboxSubscriber
from xmpp_bridge.translate import Accept, BridgeAddresses

ADDRESSES = BridgeAddresses("im.example", "bridge.im.example")
NOW = 2**47  # in the year 6429: no message is late


class Server:
    """Notes what it takes over as (message, receiver), and lets go of one delivery for each `permit`."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str]] = []
        self.sizes: list[int] = []
        self.permits = asyncio.Semaphore(0)
        self.in_hand = 0
        self.is_lost = self.is_mistaken = False

    async def deliver(self, stanzas: Iterable[str]) -> None:
        sent = [(name(stanza), receiver(stanza)) for stanza in stanzas]
        await asyncio.sleep(0)  # as the real one: it waits for the server
        self.in_hand += 1
        await self.permits.acquire()
        self.in_hand -= 1
        if self.is_mistaken and any(what == "m1" for what, _ in sent):
            raise RuntimeError("a mistake of ours")
        if self.is_lost:
            raise ComponentLost("the server was killed")
        self.taken += sent
        self.sizes.append(len(sent))

    async def barrier(self) -> None:
        pass

    def open(self) -> None:
        for _ in range(10_000):
            self.permits.release()

    def order(self) -> list[str]:
        """The messages in the order in which the first of their stanzas was taken over."""
        return list(dict.fromkeys(message for message, _ in self.taken))


class Presence:
    server_keeps = False

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.gaps = Gaps()
        self.gaps.opened(0)
        self.away: set[str] = set()
        self.up_to = 0
        self.is_noted = asyncio.Event()
        self.is_noted.set()

    async def settled(self) -> None:
        pass

    def is_due(self, user_id: str, seq: int) -> bool:
        assert seq
        return user_id not in self.away

    async def noted(self, user_ids: Iterable[str]) -> None:
        assert user_ids
        await self.is_noted.wait()

    def handed_over(self, seq: int) -> None:
        self.up_to = seq


class Recalls:
    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.asked, self.answers = asyncio.Event(), asyncio.Event()
        self.answers.set()

    async def request(self, subject: str, payload: bytes, timeout_s: float = 5) -> bytes:
        assert subject
        assert timeout_s
        self.asked.set()
        await self.answers.wait()
        asked = SeqsQuestion.from_bytes(payload).seqs
        return SeqsAnswer(seqs=[seq for seq in asked if seq in self.seqs]).to_bytes()


Verdicts = Sequence[Verdict | Later]


class Bridge:
    def __init__(self, slots: asyncio.Semaphore | None = None) -> None:
        self.server, self.presence, self.recalls = Server(), Presence(), Recalls()
        self.heard: list[tuple[OutEvent, str | None]] = []
        self.outbox = OutboxSubscriber(
            self.server,
            ADDRESSES,
            Backlog(self.recalls),
            Metrics(),
            accept=Accept.DIVERTED,
            presence=self.presence,
            culprits=Culprits(),
            consumer="xmpp-bridge",
            slots=slots or asyncio.Semaphore(PORTIONS_AT_ONCE),
            heard=lambda event, traceparent: self.heard.append((event, traceparent)),
        )
        self.place = 0

    @staticmethod
    def message(
        seq: int,
        conversation: str,
        people: int = 1,
        *,
        stored_at: int = NOW,
        sender: str = "alice",
        is_answered: bool = True,
        **element: object,
    ) -> StoredMessage:
        """A text to a session, so many of whose people are in the shard."""
        return StoredMessage(
            seq=seq,
            stored_at=stored_at,
            recipients=[f"user{number}" for number in range(people)],
            envelope=Envelope(
                msg_from=sender,
                msg_id=f"m{seq}",
                msg_type=MsgType.GROUP_TEXT,
                body=[{"session_id": conversation, "text": "hello", **element}],
            ),
            reply_to=f"{sender}@im.example/phone" if is_answered else None,
        )

    @staticmethod
    async def ended(verdicts: Verdicts) -> list[Verdict]:
        return [await one.verdict if isinstance(one, Later) else one for one in verdicts]

    def batch(self, *events: StoredMessage, received_at: int = NOW) -> list[Incoming]:
        first, self.place = self.place + 1, self.place + len(events)
        subject = subject_out(MsgType.GROUP_TEXT, "s")
        sent = [event.to_bytes() for event in events]
        return [Incoming(subject, data, first + n, received_at, weight=footprint(data)) for n, data in enumerate(sent)]


def name(stanza: str) -> str:
    found = re.search(r"<stored[^>]* msg_id='([^']*)'", stanza)
    return f"stored {found[1]}" if found else re.findall(r" id='([^']*)'", stanza)[-1]


def receiver(stanza: str) -> str:
    found = re.search(r" to='([^@']*)@", stanza)
    assert found is not None
    return found[1]


@pytest.fixture
async def bridge() -> Bridge:
    return Bridge()


@pytest.fixture
def new_bridge() -> type[Bridge]:
    return Bridge
