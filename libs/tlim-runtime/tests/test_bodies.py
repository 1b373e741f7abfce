"""A body is read within its time and parsed only when it is not too much; real connections, as a slow one is one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from socket import socket
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI
from structlog.testing import capture_logs
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_protocol.lenient import write_json
from tlim_runtime import bodies, requests
from tlim_runtime.app import build_app
from tlim_runtime.auth import CurrentUser, TokenFirstRoute
from tlim_runtime.bodies import MAX_BODY_VALUES, BoundedRoute
from tlim_runtime.settings import ServiceSettings
from tlim_runtime.turns import Turns


@asynccontextmanager
async def nothing(_app: FastAPI) -> AsyncIterator[None]:
    yield


def make_app() -> FastAPI:
    router = APIRouter(route_class=BoundedRoute)

    @router.post("/numbers")
    async def numbers(body: list[int]) -> int:
        return len(body)

    @router.post("/anything")
    async def anything(body: dict[str, Any]) -> str:
        return write_json(body)

    behind_a_token = APIRouter(route_class=TokenFirstRoute)

    @behind_a_token.post("/mine")
    async def mine(body: list[int]) -> int:
        return len(body)

    return build_app("test", "1", ServiceSettings.placeholder(), nothing, [router, behind_a_token])


class NamesAreTokens:
    """Stands in for the token check: the token is the user id."""

    async def verify(self, token: str) -> CurrentUser:
        return CurrentUser(token)


class Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(uvicorn.Config(app, port=0, log_config=None))
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[int]:
    server = Server(app)
    task = asyncio.create_task(server.serve())
    await server.listening.wait()
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


async def test_a_body_of_too_many_values_is_refused_unread() -> None:
    headers = {"Content-Type": "application/json"}
    transport = httpx.ASGITransport(make_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        most = await client.post("/numbers", content="[1" + ",1" * (MAX_BODY_VALUES - 2) + "]")
        more = await client.post("/numbers", content="[" * (MAX_BODY_VALUES + 1))
    assert (most.status_code, most.json()) == (200, MAX_BODY_VALUES - 1)
    assert (more.status_code, more.json()["code"]) == (422, "error-016")


async def test_numbers_are_kept_as_they_were_written() -> None:
    body = '{"price":100.10,"many":[1e2,12345678901234567890]}'
    async with httpx.AsyncClient(transport=httpx.ASGITransport(make_app()), base_url="http://test") as client:
        answer = await client.post("/anything", content=body, headers={"Content-Type": "application/json"})
        broken = await client.post("/anything", content="{nonsense", headers={"Content-Type": "application/json"})
    assert answer.json() == body
    assert (broken.status_code, broken.json()["code"]) == (400, "error-005")


async def test_a_body_that_never_ends_is_408_and_the_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.1)
    async with serving(make_app()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = "POST /numbers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        writer.write(head.encode() + b"[1")
        answer = await reader.read()  # until the server hangs up
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize(("user", "status"), [("alice", b"429"), ("bob", b"200")])
async def test_one_persons_slow_bodies_take_memory_for_a_few_only(
    user: str, status: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "REST_S", 0.1)  # how long the refused one is still listened to
    app = make_app()
    app.state.tokens, app.state.bodies = NamesAreTokens(), Turns(2, waiting=1)
    async with serving(app) as port, AsyncExitStack() as stack:
        stalled = [await stack.enter_async_context(stalling(port, "alice")) for _ in range(3)]
        async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.01), reraise=True):
            with attempt:
                assert app.state.bodies._lines["alice"].length == 3
        reader, writer = await stack.enter_async_context(stalling(port, user))
        if user == "bob":
            writer.write(b" " * 97 + b"]")
        assert (await reader.readline()).split()[1] == status
        assert not any(one.at_eof() for one, _ in stalled)


@asynccontextmanager
async def stalling(port: int, user: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Send the beginning of a body of 100 bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /mine HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
    writer.write(f"{head}Authorization: Bearer {user}\r\n\r\n[1".encode())
    yield reader, writer
    writer.close()


async def test_a_client_that_hangs_up_is_no_failure_of_ours() -> None:
    with capture_logs() as lines:
        async with serving(make_app()) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            head = "POST /numbers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
            writer.write(head.encode() + b"[1")
            await writer.drain()
            writer.close()
            await writer.wait_closed()
    assert [line for line in lines if line["event"] == "request failed"] == []
