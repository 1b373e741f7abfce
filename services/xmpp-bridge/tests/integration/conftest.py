"""The bridge's surroundings: a real ejabberd with our module, a real JetStream, and a directory that answers."""

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from pydantic import SecretStr
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed
from tlim_client.xmpp import ServerAddress, XmppClient
from tlim_devstack.certificates import ensure_certificates
from tlim_devstack.credentials import load_or_generate, token_key_file
from tlim_devstack.ejabberd import Ejabberd
from tlim_devstack.failures import StackError
from tlim_devstack.ports import Ports
from tlim_devstack.processes import ServerProcess
from tlim_devstack.prosody import Prosody
from tlim_devstack.servers import NatsServer
from tlim_devstack.xmpp_servers import COMPONENT, DOMAIN, XmppSettings
from tlim_protocol.events import (
    AcceptedMessage,
    OutEvent,
    RejectedMessage,
    SeqsAnswer,
    SeqsQuestion,
    StoredMessage,
    UserMeet,
    UsersDeactivated,
    UsersKnown,
)
from tlim_protocol.identity import delivery_shard
from tlim_protocol.mailboxes import (
    LiveAnswer,
    LivePerson,
    LiveQuestion,
    MailboxNoted,
    MailboxNotes,
    MissedAnswer,
    MissedQuestion,
)
from tlim_protocol.registry import REGISTRY, Effect
from tlim_protocol.streams import BRIDGE_OUTBOXES, StreamName
from tlim_protocol.subjects import Rpc, out_message_id, piece_message_id, subject_of_shard
from tlim_runtime.broker import Broker, Outgoing
from tlim_runtime.outages import Unavailable
from xmpp_bridge.app import create_app
from xmpp_bridge.settings import Settings

PASSWORDS = {"alice": "alice's secret", "bob": "密码 pässword"}


async def retry_until(check: Callable[[], Awaitable[Any]], within_s: float = 30) -> None:
    """Repeat `check` until it holds and everything that it needs answers."""
    not_yet = (AssertionError, ValueError, Unavailable)  # ValueError: fewer to unpack than expected
    async for attempt in AsyncRetrying(
        stop=stop_after_delay(within_s), wait=wait_fixed(0.05), retry=retry_if_exception_type(not_yet), reraise=True
    ):
        with attempt:
            await check()


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    return retry_until


class XmppServerProcess:
    """An XMPP server as the development stack runs it; tests may stop, freeze and start it."""

    def __init__(self, home: Path, kind: Callable[[XmppSettings], Ejabberd | Prosody]) -> None:
        authority, certificate = ensure_certificates(home / "certificates", DOMAIN)
        self.credentials = load_or_generate(home / "secrets")
        self.key_file = token_key_file(home / "secrets")
        self.ports = Ports.random()
        self.authority = authority
        self.client_side = ServerAddress("127.0.0.1", self.ports.xmpp, DOMAIN, authority)
        self.software = kind(XmppSettings(home, self.ports, self.credentials, certificate, "127.0.0.1"))
        self._program = self.software.prepare()
        self._log = home / f"{self._program.name}.log"
        self._has_accounts = False
        self.start()
        self._wait_ready()

    async def register(self, user: str, password: str) -> None:
        """Create an account while the server runs."""
        await asyncio.to_thread(self.software.register, user, password)

    async def make_accounts(self) -> None:
        """Create alice and bob, unless this was done since the server was started."""
        if not self._has_accounts:
            for user, password in PASSWORDS.items():
                await self.register(user, password)
            self._has_accounts = True

    def start(self) -> None:
        """Start it without waiting: called from a test it must not stop the test's own event loop."""
        program = self._program
        self._process = ServerProcess(program.name, program.command, self._log, env=program.environment)
        self._has_accounts = False  # ejabberd writes accounts to disk some time later, and tests kill it

    async def restart(self) -> None:
        """Stop it in order, unless it was killed, and return when it is ready again."""
        await asyncio.to_thread(self._process.stop)
        self.start()  # not in a thread: the server would end with it
        await asyncio.to_thread(self._wait_ready)

    def _wait_ready(self) -> None:
        self._process.wait_ready(lambda: self.software.ready(self._process.tail()))

    async def comes_up(self) -> None:
        """Wait until it is ready. Whenever it ends, it is started again, as whatever runs ejabberd does."""
        while True:
            try:
                return await asyncio.to_thread(self._wait_ready)
            except StackError:
                if self._process.process.poll() is None:
                    raise
                self.start()

    @property
    def pid(self) -> int:
        """The server's process id: what wraps it turns into it."""
        return self._process.process.pid

    def stop(self) -> None:
        self._process.stop(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it keep its connections in silence. When this returns, it answers nothing more."""
        self._process.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def ends(self) -> None:
        """Wait until it has ended by itself."""
        self._process.process.wait(60)

    def thaw(self) -> None:
        self._process.process.send_signal(signal.SIGCONT)


StartServer = Callable[[Path, Callable[[XmppSettings], Ejabberd | Prosody]], XmppServerProcess]


@pytest.fixture(scope="session")
def start_xmpp_server() -> Iterator[StartServer]:
    """Return a function: home and kind → a server that runs until the end of the session."""
    with ExitStack() as stack:

        def start(home: Path, kind: Callable[[XmppSettings], Ejabberd | Prosody]) -> XmppServerProcess:
            server = XmppServerProcess(home, kind)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="session")
def xmpp_servers() -> dict[Any, XmppServerProcess]:
    """The session's servers: one of each kind."""
    return {}


@pytest.fixture(scope="session")
def xmpp_server(
    request: pytest.FixtureRequest,
    xmpp_servers: dict[Any, XmppServerProcess],
    start_xmpp_server: StartServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> XmppServerProcess:
    """ejabberd, or the server that a test names: `parametrize("xmpp_server", [Ejabberd, Prosody], indirect=True)`."""
    kind = getattr(request, "param", Ejabberd)
    server = xmpp_servers.get(kind) or start_xmpp_server(tmp_path_factory.mktemp("xmpp"), kind)
    return xmpp_servers.setdefault(kind, server)


@dataclass
class Directory:
    """Session-api's users directory, as the bridge sees it."""

    seen: list[str] = field(default_factory=list)

    async def answer(self, data: bytes) -> bytes:
        question = UserMeet.from_bytes(data)
        self.seen.extend(question.seen)
        return UsersKnown(known=question.ask).to_bytes()

    async def answer_deactivated(self, _: bytes) -> bytes:
        return UsersDeactivated(users=[]).to_bytes()


@dataclass
class Recalls:
    """Message-store's record of what was recalled, as the bridge sees it."""

    recalled: set[int] = field(default_factory=set)
    asked: list[int] = field(default_factory=list)
    is_up: bool = True

    async def answer(self, data: bytes) -> bytes:
        if not self.is_up:
            raise Unavailable("the database is away")
        self.asked.extend(SeqsQuestion.from_bytes(data).seqs)
        return SeqsAnswer(seqs=sorted(self.recalled.intersection(self.asked))).to_bytes()


@dataclass
class Mailboxes:
    """Message-store's log and mailboxes, as the bridge sees them. A number only rises here."""

    recalls: Recalls
    log: list[StoredMessage] = field(default_factory=list)
    taken: dict[str, int] = field(default_factory=dict)
    live: dict[str, list[str]] = field(default_factory=dict)
    terms: dict[int, int] = field(default_factory=dict)

    async def note(self, data: bytes) -> bytes:
        request = MailboxNotes.from_bytes(data)
        if request.term != self.terms.get(request.shard):
            return MailboxNoted(is_outdated=True).to_bytes()
        for note in request.notes:
            self.live[note.user_id] = note.sessions
            self.taken[note.user_id] = max(self.taken.get(note.user_id, 0), note.taken or 0)
        return MailboxNoted().to_bytes()

    async def is_live(self, user_id: str) -> None:
        """Hold when the person's catch-up is over."""
        assert self.live.get(user_id)

    async def who_was_live(self, data: bytes) -> bytes:
        question = LiveQuestion.from_bytes(data)
        assert question.after_user == ""
        self.terms[question.shard] = term = self.terms.get(question.shard, 0) + 1
        people = [
            LivePerson(user_id=name, sessions=sessions)
            for name, sessions in self.live.items() if sessions and delivery_shard(name) == question.shard
        ]  # fmt: skip
        return LiveAnswer(people=people, more=False, term=term).to_bytes()

    async def missed(self, data: bytes) -> bytes:
        if not self.recalls.is_up:
            raise Unavailable("the database is away")
        question = MissedQuestion.from_bytes(data)
        user_id, newest = question.user_id, max((row.seq for row in self.log), default=0)
        after = self.taken.get(user_id, 0) if question.after is None else question.after
        rows = sorted({row.seq: row for row in self.log if user_id in row.recipients and row.seq > after}.items())
        recalled = self._recalled()
        page = [row.model_copy(update={"recipients": [user_id]}) for _, row in rows if _key(row) not in recalled]
        limit, more = question.limit, len(page) > question.limit
        following = page[limit - 1].seq if more else max(newest, after)
        return MissedAnswer(
            events=page[:limit], next=following, more=more, up_to=following, receipts=question.receipts
        ).to_bytes()

    def _recalled(self) -> set[tuple[str, str]]:
        notices = [one.envelope for one in self.log if REGISTRY[one.envelope.msg_type].effect is Effect.RECALL]
        by_name = {(notice.msg_from, element["msg_id"]) for notice in notices for element in notice.body}
        return by_name | {_key(row) for row in self.log if row.seq in self.recalls.recalled}


def _key(row: StoredMessage) -> tuple[str, str]:
    return row.envelope.msg_from, row.envelope.msg_id


class Bridge:
    """A running xmpp-bridge and its HTTP side."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bridge")

    async def checks(self) -> dict[str, str]:
        checks: dict[str, str] = (await self.http.get("/readyz")).json()["checks"]
        return checks

    async def is_ready(self) -> None:
        answer = await self.http.get("/readyz")
        assert answer.status_code == 200, answer.text


@dataclass
class World:
    """One bridge's neighbours, and what a test does with them."""

    xmpp: XmppServerProcess
    nats: NatsServer
    broker: Broker
    directory: Directory
    recalls: Recalls
    mailboxes: Mailboxes
    stack: AsyncExitStack

    def settings(self, **changes: Any) -> Settings:
        usual = {
            "port": 0,
            "jwks_url": "http://unset.invalid",
            "nats_url": self.nats.url,
            "nats_user": Settings.service,
            "nats_password": SecretStr(self.nats.passwords[Settings.service]),
            "xmpp_component_port": self.xmpp.ports.component,
            "xmpp_client_port": self.xmpp.ports.xmpp,
            "xmpp_ca_file": self.xmpp.authority,
            "component_jid": COMPONENT,
            "component_secret": SecretStr(self.xmpp.credentials.component),
            "token_key_file": self.xmpp.key_file,
        }
        return Settings(**{**usual, **changes})

    @asynccontextmanager
    async def bridge(self, **changes: Any) -> AsyncIterator[Bridge]:
        """Run a bridge; ready unless its settings are wrong. Leaving the block is what SIGTERM does."""
        app = create_app(self.settings(**changes))
        async with app.router.lifespan_context(app):
            bridge = Bridge(app)
            async with bridge.http:
                yield bridge

    @asynccontextmanager
    async def ready_bridge(self, **changes: Any) -> AsyncIterator[Bridge]:
        async with self.bridge(**changes) as bridge:
            await retry_until(bridge.is_ready)
            yield bridge

    async def login(self, user: str) -> XmppClient:
        await self.xmpp.make_accounts()
        return await self.stack.enter_async_context(XmppClient(self.xmpp.client_side, user, PASSWORDS[user]))

    def password_of(self, user: str) -> str:
        return PASSWORDS[user]

    async def accepted(self) -> list[AcceptedMessage]:
        """Everything in TLIM_IN, oldest first."""
        state = await self.broker.stream_state(StreamName.IN)
        wanted = range(state.first_seq, state.last_seq + 1) if state.messages else []
        answers = await asyncio.gather(*(self.broker.api(f"STREAM.MSG.GET.{StreamName.IN}", seq=one) for one in wanted))
        return [AcceptedMessage.from_bytes(base64.b64decode(answer["message"]["data"])) for answer in answers]

    async def publish(self, *events: OutEvent) -> None:
        """Say what the store would say."""
        await self.publish_all(iter(events))

    async def publish_all(self, events: Iterator[OutEvent]) -> None:
        """Say it a few at a time: a bridge in this process has to renew its leases meanwhile."""
        while portion := list(islice(events, 50)):
            self.mailboxes.log += [event for event in portion if isinstance(event, StoredMessage)]
            await self.broker.publish_batch([message for event in portion for message in messages_of(event)])

    async def all_acknowledged(self) -> None:
        for spec in BRIDGE_OUTBOXES:
            info = await self.broker.api(f"CONSUMER.INFO.{StreamName.OUT}.{spec.durable}")
            assert (info["num_pending"], info["num_ack_pending"]) == (0, 0)


def messages_of(event: OutEvent) -> Iterator[Outgoing]:
    """The messages in which the store says it."""
    for shard, piece in pieces_of(event).items():
        kind = piece.envelope.msg_type if isinstance(piece, StoredMessage) else piece.msg_type
        message_id = piece_message_id(out_message_id(event), shard)
        yield Outgoing(subject_of_shard(kind, shard), piece.to_bytes(), message_id)


def pieces_of(event: OutEvent) -> dict[int, OutEvent]:
    """The pieces in which the store says it, by delivery shard: the sender's first."""
    if isinstance(event, RejectedMessage):
        return {delivery_shard(event.sender): event}
    people = sorted(event.recipients, key=delivery_shard)
    told = {shard: list(names) for shard, names in groupby(people, key=delivery_shard)}
    sender = delivery_shard(event.envelope.msg_from)
    pieces: dict[int, OutEvent] = {sender: event.model_copy(update={"recipients": told.pop(sender, [])})}
    for shard, names in told.items():
        pieces[shard] = event.model_copy(update={"recipients": names, "reply_to": None, "tells_sender": False})
    return pieces


@pytest_asyncio.fixture
async def world(xmpp_server: XmppServerProcess, clean_jetstream: NatsServer, broker: Broker) -> AsyncIterator[World]:
    await xmpp_server.make_accounts()
    directory, recalls = Directory(), Recalls()
    await broker.respond(Rpc.USER_MEET, directory.answer, "directory")
    await broker.respond(Rpc.USER_DEACTIVATED, directory.answer_deactivated, "directory")
    mailboxes = Mailboxes(recalls)
    await broker.respond(Rpc.MESSAGE_RECALLED, recalls.answer, "store")
    await broker.respond(Rpc.MAILBOX_NOTE, mailboxes.note, "store")
    await broker.respond(Rpc.MAILBOX_LIVE, mailboxes.who_was_live, "store")
    await broker.respond(Rpc.MAILBOX_MISSED, mailboxes.missed, "store")
    async with AsyncExitStack() as stack:
        yield World(xmpp_server, clean_jetstream, broker, directory, recalls, mailboxes, stack)
