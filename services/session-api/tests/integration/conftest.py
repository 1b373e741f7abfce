"""session-api as it runs: its own migrated database, real NATS; callers are told apart by tokens signed here."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from session_api.app import create_app
from session_api.settings import Settings
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_devstack.pytest_plugin import MakeDatabase
from tlim_devstack.servers import NatsServer
from tlim_protocol.events import SessionEvent
from tlim_protocol.streams import StreamName
from tlim_runtime import deactivation
from tlim_runtime.auth import TokenVerifier
from tlim_runtime.broker import Broker

ClientOf = Callable[..., httpx.AsyncClient]
AsUser = Callable[..., httpx.AsyncClient]
Running = Callable[[Settings], AbstractAsyncContextManager[FastAPI]]
AllPublished = Callable[[], Awaitable[None]]
Published = Callable[[], Awaitable[list[SessionEvent]]]

_KEY = Ed25519PrivateKey.generate()
_KEY_ID = "tests"


async def _jwks() -> dict[str, Any]:
    public = jwt.algorithms.OKPAlgorithm.to_jwk(_KEY.public_key(), as_dict=True)
    return {"keys": [{**public, "kid": _KEY_ID, "alg": "EdDSA", "use": "sig"}]}


def _token(settings: Settings, user_id: str, scope: str) -> str:
    now = int(time.time())
    claims = {"sub": user_id, "iss": settings.token_issuer, "aud": settings.token_audience, "scope": scope}
    return jwt.encode({**claims, "iat": now, "exp": now + 600}, _KEY, algorithm="EdDSA", headers={"kid": _KEY_ID})


@pytest.fixture
def overrides() -> dict[str, Any]:
    """Settings of this test that differ from the defaults; a test module may replace it."""
    return {}


@pytest.fixture
def database_url(make_database: MakeDatabase) -> str:
    return make_database("session_api")


@pytest.fixture
def settings(database_url: str, clean_jetstream: NatsServer, overrides: dict[str, Any]) -> Settings:
    given: dict[str, Any] = {
        "port": 0,
        "nats_url": clean_jetstream.url,
        "nats_user": Settings.service,
        "nats_password": clean_jetstream.passwords[Settings.service],
        "jwks_url": "http://unused.invalid",
        "database_url": database_url,
    }
    return Settings(**(given | overrides))


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Running:
    """Return a function: settings → the application, open until the block ends.

    It reads only at its start who is deactivated, because some tests act as such users.
    """
    monkeypatch.setattr(deactivation, "READ_EVERY_S", 86_400)

    @asynccontextmanager
    async def run(settings: Settings) -> AsyncIterator[FastAPI]:
        app = create_app(settings)
        app.state.tokens = TokenVerifier(_jwks, settings.token_issuer, settings.token_audience)
        async with app.router.lifespan_context(app):
            yield app

    return run


@pytest.fixture
def client_of() -> ClientOf:
    """Return a function: application and, unless he has no token, user id and scope → client."""

    def client(app: FastAPI, user_id: str | None = None, scope: str = "") -> httpx.AsyncClient:
        headers = {} if user_id is None else {"Authorization": f"Bearer {_token(app.state.settings, user_id, scope)}"}
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://tlim.test", headers=headers)

    return client


@pytest_asyncio.fixture
async def app(running: Running, settings: Settings) -> AsyncIterator[FastAPI]:
    async with running(settings) as app:
        yield app


@pytest.fixture
def stranger(client_of: ClientOf, app: FastAPI) -> httpx.AsyncClient:
    """A client without a token."""
    return client_of(app)


@pytest.fixture
def as_user(client_of: ClientOf, app: FastAPI) -> AsUser:
    """Return a function: user id and scope → client with his token."""
    return partial(client_of, app)


@pytest.fixture
def admin(as_user: AsUser) -> httpx.AsyncClient:
    """A client with scope admin."""
    return as_user("importer", scope="admin")


@pytest_asyncio.fixture
async def people(admin: httpx.AsyncClient) -> list[str]:
    """Alice, bob, carol and dave are in the directory."""
    names = {"alice": "爱丽丝", "bob": "Bob", "carol": "Carol", "dave": "Dave"}
    users = [{"user_id": user_id, "name": name} for user_id, name in names.items()]
    assert (await admin.post("/v1/users", json={"users": users})).status_code == 200
    return list(names)


@pytest_asyncio.fixture
async def lunch(as_user: AsUser, people: list[str]) -> str:
    """A session of alice, bob and carol, created by alice; its id."""
    answer = await as_user("alice").post("/v1/sessions", json={"session_type": 1, "subscribers": people[:3]})
    assert answer.status_code == 201
    return str(answer.json()["session_id"])


@pytest.fixture
def published(broker: Broker, all_published: AllPublished) -> Published:
    """Return a function: all session events that were committed, as JetStream has them, in their order.

    An answer waits for JetStream no longer than two seconds, and a busy machine can take longer.
    """

    async def read() -> list[SessionEvent]:
        await all_published()
        state = await broker.stream_state(StreamName.IN)
        asked = (broker.api(f"STREAM.MSG.GET.{StreamName.IN}", seq=one + 1) for one in range(state.last_seq))
        stored = await asyncio.gather(*asked)
        return [SessionEvent.from_bytes(_payload(one)) for one in stored]

    return read


@pytest.fixture
def all_published(app: FastAPI) -> AllPublished:
    """Return a function: wait until nothing is left in the outbox, also when NATS was away until now."""

    async def wait() -> None:
        async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.05), reraise=True):
            with attempt:
                assert await app.state.outbox_relay.flush()

    return wait


def _payload(answer: dict[str, Any]) -> bytes:
    return base64.b64decode(answer["message"]["data"])
