"""The store's surroundings: a bridge that publishes, a directory that answers, and eyes on the outcome."""

import base64
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import nats as nats_client
import pytest
import pytest_asyncio
from fastapi import FastAPI
from message_store.app import create_app
from message_store.settings import Settings
from nats.aio.client import Client
from pydantic import SecretStr
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed
from tlim_admin.databases import owner_of
from tlim_devstack import postgres
from tlim_devstack.restartable import RestartableNats, RestartablePostgres
from tlim_devstack.servers import PUBLISHED_KEYS, NatsServer
from tlim_devstack.waiting import free_port
from tlim_protocol.envelope import Envelope
from tlim_protocol.events import (
    AcceptedMessage,
    FilesAnswer,
    FilesQuestion,
    OutEvent,
    SessionChanges,
    SessionChangesQuestion,
    SessionEvent,
    SessionsAnswer,
    SessionsQuestion,
    StoredMessage,
    UserMeet,
    UsersDeactivated,
    UsersKnown,
    read_out_event,
)
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import STORE_INBOXES, STREAMS, StreamName
from tlim_protocol.subjects import Rpc, session_event_id, subject_in
from tlim_runtime.broker import Broker
from tlim_runtime.migrations import upgrade
from tlim_runtime.outages import BrokerUnavailable
from tlim_runtime.provision import provision

DATABASE = "message_store"


async def eventually(check: Callable[[], Awaitable[Any]], within_s: float = 30) -> None:
    """Repeat `check` until it holds and everything that it needs answers."""
    not_yet = (AssertionError, ValueError, BrokerUnavailable)  # ValueError: more or fewer to unpack than expected
    async for attempt in AsyncRetrying(
        stop=stop_after_delay(within_s), wait=wait_fixed(0.05), retry=retry_if_exception_type(not_yet), reraise=True
    ):
        with attempt:
            await check()


def accepted_message(
    msg_id: str, sender: str = "alice", to: str | None = "bob", msg_type: MsgType = MsgType.TEXT, **changes: Any
) -> AcceptedMessage:
    """A message as the bridge accepts it."""
    body = changes.pop("body", [{"text": f"text of {msg_id}"}])
    msg_time = changes.pop("msg_time", "1599218283837")
    envelope = Envelope(msg_from=sender, msg_to=to, msg_id=msg_id, msg_type=msg_type, msg_time=msg_time, body=body)
    known = {
        "reply_to": f"{sender}@im.example/web",
        "stanza_id": msg_id,
        "location": "web",
        "received_at": 1_700_000_000_000,
    }
    return AcceptedMessage(sender=sender, envelope=envelope, **{**known, **changes})


def session_event(session_id: str, version: int, *subscribers: str, **changes: Any) -> SessionEvent:
    """What session-api tells of a session."""
    known = {
        "msg_type": MsgType.SESSION_ADDED if version == 1 else MsgType.SESSION_CHANGED,
        "session_name": f"name of {session_id}", "session_type": 0, "session_user": "alice", "change": version,
        "actor": "alice", "at": 1_700_000_000_000, "added": [], "removed": [], "deleted": False,
    }  # fmt: skip
    return SessionEvent(session_id=session_id, version=version, subscribers=list(subscribers), **{**known, **changes})


@dataclass
class Directory:
    """Session-api: everybody exists, but for strangers; sessions as told here, whether anybody heard of them or not."""

    strangers: set[str] = field(default_factory=set)
    questions: list[UserMeet] = field(default_factory=list)
    sessions: dict[str, SessionEvent] = field(default_factory=dict)
    asked_sessions: list[list[str]] = field(default_factory=list)
    log: list[SessionEvent] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)

    async def answer(self, data: bytes) -> bytes:
        question = UserMeet.from_bytes(data)
        self.questions.append(question)
        return UsersKnown(known=[user for user in question.ask if user not in self.strangers]).to_bytes()

    async def answer_deactivated(self, _: bytes) -> bytes:
        return UsersDeactivated(users=[]).to_bytes()

    async def answer_changes(self, data: bytes) -> bytes:
        question = SessionChangesQuestion.from_bytes(data)
        found = [event for event in self.log if event.change > question.after]
        return SessionChanges(events=found[:2], more=len(found) > 2).to_bytes()

    async def answer_files(self, data: bytes) -> bytes:
        """File-api's: every file exists but `none…`, and is everybody's unless it has an owner."""
        asks = [ask for ask in FilesQuestion.from_bytes(data).asks if not ask.file_id.startswith("none")]
        owned = [ask for ask in asks if self.owners.get(ask.file_id, ask.user_id) == ask.user_id]
        return FilesAnswer(existing=sorted({ask.file_id for ask in asks}), owned=owned).to_bytes()

    async def answer_session(self, data: bytes) -> bytes:
        asked = SessionsQuestion.from_bytes(data).session_ids
        self.asked_sessions.append(asked)
        told = [self.sessions[one] for one in asked if one in self.sessions]
        return SessionsAnswer(sessions=told, unknown=[one for one in asked if one not in self.sessions]).to_bytes()


@dataclass
class World:
    """One message-store's servers, and what a test does with them."""

    nats: NatsServer
    database_url: str
    connect: Callable[[str], Awaitable[Broker]]
    tests: Broker
    bridge: Broker
    session_api: Broker
    file_api: Broker
    directory: Directory = field(default_factory=Directory)

    async def stop_directory(self) -> None:
        await self.session_api.close()

    def settings(self, **changes: Any) -> Settings:
        values: dict[str, Any] = {
            "port": 0, "nats_url": self.nats.url, "nats_user": "message-store",
            "nats_password": SecretStr(self.nats.passwords["message-store"]), "jwks_url": PUBLISHED_KEYS,
            "database_url": SecretStr(self.database_url), "leadership_poll": 0.05,
        }  # fmt: skip
        return Settings(**{**values, **changes})

    @asynccontextmanager
    async def running(self, app: FastAPI | None = None, **changes: Any) -> AsyncIterator[FastAPI]:
        """An instance of the whole application in this process, with changed settings."""
        app = app or create_app(self.settings(**changes))
        async with app.router.lifespan_context(app):
            yield app

    async def send(self, *messages: AcceptedMessage) -> None:
        """Publish as the bridge does."""
        for message in messages:
            envelope = message.envelope
            await self.send_raw(subject_in(envelope.msg_type, envelope.conversation_id), message.to_bytes())

    async def announce(self, *events: SessionEvent) -> None:
        """Publish as session-api does."""
        for event in events:
            subject = subject_in(event.msg_type, event.session_id)
            message_id = session_event_id(event.session_id, event.version)
            await self.session_api.publish(subject, event.to_bytes(), message_id)

    async def send_raw(self, subject: str, payload: bytes) -> None:
        await self.bridge.publish(subject, payload)

    async def out(self) -> list[OutEvent]:
        """Everything in TLIM_OUT, in its order; the pieces of a message are put together."""
        events: list[OutEvent] = []
        for piece in [read_out_event(data) for data in await self._payloads(StreamName.OUT)]:
            before = events[-1] if events else None
            if not isinstance(piece, StoredMessage) or not isinstance(before, StoredMessage) or before.is_last:
                events.append(piece)
            else:
                assert piece.seq == before.seq
                recipients = sorted([*before.recipients, *piece.recipients])
                events[-1] = before.model_copy(update={"recipients": recipients, "is_last": piece.is_last})
        return events

    async def pieces(self) -> list[StoredMessage]:
        """The pieces of messages in TLIM_OUT, in its order."""
        events = [read_out_event(data) for data in await self._payloads(StreamName.OUT)]
        return [event for event in events if isinstance(event, StoredMessage)]

    async def deliveries(self) -> list[StoredMessage]:
        return [event for event in await self.out() if isinstance(event, StoredMessage) and event.recipients]

    async def dead(self) -> list[tuple[bytes, str]]:
        """The dead letters: payload and headers."""
        return [
            (base64.b64decode(one.get("data", "")), base64.b64decode(one.get("hdrs", "")).decode())
            for one in await self._stored(StreamName.DEAD)
        ]

    async def inbox_is_empty(self) -> None:
        for spec in STORE_INBOXES:
            info = await self.tests.api(f"CONSUMER.INFO.{spec.stream}.{spec.durable}")
            assert (info["num_pending"], info["num_ack_pending"]) == (0, 0)

    async def rows(self) -> list[asyncpg.Record]:
        return await self.sql("SELECT * FROM messages ORDER BY seq")

    async def sql(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.database_url.replace("+asyncpg", ""))
        try:
            return await connection.fetch(statement, *arguments)
        finally:
            await connection.close()

    async def broker_is_back(self) -> None:
        """Wait until NATS answers."""

        async def answers() -> None:
            await self.bridge.ping()
            await self.tests.ping()

        await eventually(answers)

    async def recreate_stream(self, stream: StreamName) -> None:
        """Lose a stream with all its messages, and provision again."""
        await self.tests.api(f"STREAM.DELETE.{stream}")
        await self._as_administrator(provision)

    async def forget_duplicates(self) -> None:
        """Make JetStream forget which message ids it has seen, as it does when the window is over."""
        spec = next(spec for spec in STREAMS if spec.name is StreamName.OUT)
        for seconds in (0.1, spec.duplicate_window.total_seconds()):
            await self._update_stream(StreamName.OUT, duplicate_window=seconds)

    async def limit_stream(self, stream: StreamName, *, max_msgs: int) -> None:
        await self._update_stream(stream, max_msgs=max_msgs)

    async def _update_stream(self, stream: StreamName, **changes: Any) -> None:
        async def update(client: Client) -> None:
            config = (await client.jetstream().stream_info(stream)).config
            await client.jetstream().update_stream(config.evolve(**changes))

        await self._as_administrator(update)

    async def _as_administrator(self, act: Callable[[Client], Awaitable[None]]) -> None:
        client = await nats_client.connect(self.nats.url, user="tests", password=self.nats.passwords["tests"])
        try:
            await act(client)
        finally:
            await client.close()

    async def settled(self, messages: int) -> None:
        """Wait until that many messages are stored and everything accepted is acknowledged."""

        async def check() -> None:
            assert len(await self.rows()) == messages
            await self.inbox_is_empty()

        await eventually(check)

    async def _payloads(self, stream: StreamName) -> list[bytes]:
        return [base64.b64decode(one.get("data", "")) for one in await self._stored(stream)]

    async def _stored(self, stream: StreamName) -> list[dict[str, Any]]:
        state = await self.tests.stream_state(stream)
        answers = [
            await self.tests.api(f"STREAM.MSG.GET.{stream}", seq=seq)
            for seq in range(max(state.first_seq, 1), state.last_seq + 1)
        ]
        return [answer["message"] for answer in answers if "message" in answer]


@asynccontextmanager
async def open_world(nats: NatsServer, database_url: str) -> AsyncIterator[World]:
    """Connect everybody around the store."""
    async with AsyncExitStack() as stack:

        async def connect(user: str) -> Broker:
            broker = await Broker.connect(nats.url, user, nats.passwords[user], f"test of {user}")
            stack.push_async_callback(broker.close)
            return broker

        users = ("tests", "xmpp-bridge", "session-api", "file-api")
        tests, bridge, session_api, file_api = [await connect(user) for user in users]
        world = World(nats, database_url, connect, tests, bridge, session_api, file_api)
        await world.session_api.respond(Rpc.USER_MEET, world.directory.answer, "session-api")
        await world.session_api.respond(Rpc.SESSION_GET, world.directory.answer_session, "session-api")
        await world.session_api.respond(Rpc.SESSION_CHANGES, world.directory.answer_changes, "session-api")
        await world.session_api.respond(Rpc.USER_DEACTIVATED, world.directory.answer_deactivated, "session-api")
        await world.session_api.flush()
        await world.file_api.respond(Rpc.FILE_CHECK, world.directory.answer_files, "file-api")
        await world.file_api.flush()
        yield world


@pytest_asyncio.fixture
async def world(clean_jetstream: NatsServer, make_database: Callable[[str], str]) -> AsyncIterator[World]:
    async with open_world(clean_jetstream, make_database(DATABASE)) as opened:
        yield opened


@pytest.fixture(name="accepted")
def accepted_fixture() -> Callable[..., AcceptedMessage]:
    return accepted_message


@pytest.fixture(name="session_event")
def session_event_fixture() -> Callable[..., SessionEvent]:
    return session_event


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., Awaitable[None]]:
    return eventually


@pytest_asyncio.fixture
async def own_world(
    restartable_nats: RestartableNats, restartable_postgres: RestartablePostgres
) -> AsyncIterator[World]:
    """A world on servers that the test may stop."""
    nats_server, postgres_server = restartable_nats.server, restartable_postgres.server
    client = await nats_client.connect(nats_server.url, user="tests", password=nats_server.passwords["tests"])
    await provision(client)
    await client.close()
    postgres.create_database(postgres_server.admin, DATABASE, DATABASE)
    upgrade(DATABASE, postgres_server.login(owner_of(DATABASE), DATABASE).url())
    async with open_world(nats_server, postgres_server.login(DATABASE, DATABASE).url()) as opened:
        yield opened


@dataclass
class StoreProcess:
    """An instance of the store as its own process."""

    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "message_store"],
                env={**os.environ, **self.environment},
                stdout=output,
                stderr=output,
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start_store(tmp_path: Path) -> Iterator[Callable[[World], StoreProcess]]:
    """Return a function: world → a running store process, killed after the test."""
    started: list[StoreProcess] = []

    def start(world: World) -> StoreProcess:
        environment = {
            "TLIM_PORT": str(free_port()),
            "TLIM_NATS_URL": world.nats.url,
            "TLIM_NATS_USER": "message-store",
            "TLIM_NATS_PASSWORD": world.nats.passwords["message-store"],
            "TLIM_JWKS_URL": PUBLISHED_KEYS,
            "TLIM_DATABASE_URL": world.database_url,
            "TLIM_LEADERSHIP_POLL": "PT0.05S",
        }
        store = StoreProcess(environment, tmp_path / f"store-{len(started)}.log")
        store.start()
        started.append(store)
        return store

    yield start
    for store in started:
        store.kill()
