"""The store's surroundings: a bridge that publishes, a directory that answers, and eyes on the outcome."""

import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from message_store.app import create_app
from message_store.settings import Settings
from pydantic import SecretStr
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed
from tlim_devstack.servers import NatsServer
from tlim_protocol.envelope import Envelope
from tlim_protocol.events import AcceptedMessage, OutEvent, StoredMessage, UserMeet, UsersKnown, read_out_event
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import StreamName
from tlim_protocol.subjects import Rpc, in_message_id, subject_in
from tlim_runtime.broker import Broker



async def eventually(check: Callable[[], Awaitable[Any]], within_s: float = 30) -> None:
    """Repeat `check` until it raises no AssertionError."""
    async for attempt in AsyncRetrying(
        stop=stop_after_delay(within_s), wait=wait_fixed(0.05), retry=retry_if_exception_type(AssertionError), reraise=True
    ):
        with attempt:
            await check()


def accepted_message(
    msg_id: str, sender: str = "alice", to: str | None = "bob", msg_type: MsgType = MsgType.TEXT, **changes: Any
) -> AcceptedMessage:
    """A message as the bridge accepts it."""
    body = changes.pop("body", [{"text": f"text of {msg_id}"}])
    msg_time = changes.pop("msg_time", "1599218283837")
    envelope = Envelope(
        msg_from=sender, msg_to=to, msg_id=msg_id, msg_type=msg_type, msg_time=msg_time, body=body
    )
    known = {"reply_to": f"{sender}@im.example/web", "stanza_id": msg_id, "location": "web", "received_at": 1_700_000_000_000}
    return AcceptedMessage(sender=sender, envelope=envelope, **{**known, **changes})


@dataclass
class Directory:
    """Session-api's users directory: everybody exists, but for strangers."""

    strangers: set[str] = field(default_factory=set)
    questions: list[UserMeet] = field(default_factory=list)

    async def answer(self, data: bytes) -> bytes:
        question = UserMeet.from_bytes(data)
        self.questions.append(question)
        return UsersKnown(known=[user for user in question.ask if user not in self.strangers]).to_bytes()


@dataclass
class World:
    """One message-store's servers, and what a test does with them."""

    nats: NatsServer
    database_url: str
    tests: Broker
    bridge: Broker
    directory: Directory = field(default_factory=Directory)

    def settings(self, **changes: Any) -> Settings:
        values: dict[str, Any] = {
            "port": 0, "nats_url": self.nats.url, "nats_user": "message-store",
            "nats_password": SecretStr(self.nats.passwords["message-store"]), "jwks_url": "http://jwks.invalid",
            "database_url": SecretStr(self.database_url), "leadership_poll": 0.05,
        }  # fmt: skip
        return Settings(**{**values, **changes})

    @asynccontextmanager
    async def running(self, app: FastAPI | None = None) -> AsyncIterator[FastAPI]:
        """An instance of the whole application in this process."""
        app = app or create_app(self.settings())
        async with app.router.lifespan_context(app):
            yield app

    async def send(self, *messages: AcceptedMessage, fresh_id: str = "") -> None:
        """Publish as the bridge does; with `fresh_id` past JetStream's own duplicate check, as it does for a resend."""
        for message in messages:
            envelope = message.envelope
            message_id = in_message_id(message.sender, envelope.msg_id) + fresh_id
            await self.send_raw(
                subject_in(envelope.msg_type, envelope.conversation_id), message.to_bytes(), message_id
            )

    async def send_raw(self, subject: str, payload: bytes, message_id: str) -> None:
        await self.bridge.publish(subject, payload, message_id)

    async def out(self) -> list[OutEvent]:
        """Everything in TLIM_OUT, in its order."""
        return [read_out_event(data) for data in await self._payloads(StreamName.OUT)]

    async def deliveries(self) -> list[StoredMessage]:
        return [event for event in await self.out() if isinstance(event, StoredMessage) and event.recipients]

    async def dead(self) -> list[tuple[bytes, str]]:
        """The dead letters: payload and headers."""
        return [
            (base64.b64decode(one.get("data", "")), base64.b64decode(one.get("hdrs", "")).decode())
            for one in await self._stored(StreamName.DEAD)
        ]

    async def inbox_is_empty(self) -> None:
        info = await self.tests.api(f"CONSUMER.INFO.{StreamName.IN}.message-store")
        assert (info["num_pending"], info["num_ack_pending"]) == (0, 0)

    async def rows(self) -> list[asyncpg.Record]:
        return await self.sql("SELECT * FROM messages ORDER BY seq")

    async def sql(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.database_url.replace("+asyncpg", ""))
        try:
            return await connection.fetch(statement, *arguments)
        finally:
            await connection.close()

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

        world = World(nats, database_url, await connect("tests"), await connect("xmpp-bridge"))
        session_api = await connect("session-api")
        await session_api.respond(Rpc.USER_MEET, world.directory.answer, "session-api")
        await session_api.flush()
        yield world


@pytest_asyncio.fixture
async def world(clean_jetstream: NatsServer, make_database: Callable[[str], str]) -> AsyncIterator[World]:
    async with open_world(clean_jetstream, make_database("message_store")) as opened:
        yield opened


@pytest.fixture(name="accepted")
def accepted_fixture() -> Callable[..., AcceptedMessage]:
    return accepted_message


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., Awaitable[None]]:
    return eventually
