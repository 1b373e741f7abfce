import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from httpx import ASGITransport, AsyncClient
from starlette.datastructures import Headers
from starlette.responses import StreamingResponse
from starlette.types import Message
from structlog.contextvars import get_contextvars
from tlim_protocol.errors import ErrorCode
from tlim_runtime import health, requests
from tlim_runtime.app import build_app
from tlim_runtime.errors import LegacyRoute
from tlim_runtime.requests import MAX_HEADERS_BYTES, UNREAD_BODY, UnreadBodies
from tlim_runtime.settings import ServiceSettings


@asynccontextmanager
async def nothing(_app: FastAPI) -> AsyncIterator[None]:
    yield


def client_of(app: FastAPI) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app), base_url="http://test")


def app_with(*routers: APIRouter) -> FastAPI:
    return build_app("test", "1", ServiceSettings.placeholder(), nothing, routers)


async def fine() -> None:
    pass


async def broken() -> None:
    raise LookupError("disk full")


async def stuck() -> None:
    await asyncio.Event().wait()


async def test_alive_without_asking_anybody_and_ready_when_all_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PING_TIMEOUT_S", 0.05)
    app = app_with()
    app.state.health.add("one", fine)
    async with client_of(app) as client:
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"ready": True, "checks": {"one": "ok"}})
        app.state.health.add("two", broken)
        app.state.health.add("three", stuck)
        red = await client.get("/readyz")
        assert red.status_code == 503
        assert red.json() == {
            "ready": False,
            "checks": {"one": "ok", "two": "disk full", "three": "no answer within 0.05 s"},
        }
        assert (await client.get("/healthz")).status_code == 200


async def test_requests_are_counted_by_route_and_applications_do_not_share_metrics() -> None:
    router = APIRouter(prefix="/v1")

    @router.get("/things/{name}")
    async def get_thing(name: str) -> str:
        return name

    app = app_with(router)
    own = app.state.metrics.counter("tlim_test_things_total", "Things")
    own.inc()
    async with client_of(app) as client:
        for name in ("a", "b"):
            await client.get(f"/v1/things/{name}")
        await client.get("/stray")
        text = (await client.get("/metrics")).text
    assert 'tlim_http_request_duration_seconds_count{method="GET",route="/v1/things/{name}",status="200"} 2.0' in text
    assert 'route="unmatched",status="404"} 1.0' in text
    assert "tlim_test_things_total 1.0" in text
    assert "process_resident_memory_bytes" in text
    async with client_of(app_with()) as client:
        assert "tlim_test_things_total" not in (await client.get("/metrics")).text


@pytest.mark.parametrize(("given", "kept"), [("abc-1.2_3", True), ("", False), ("a b", False), ("x" * 65, False)])
async def test_a_request_id_is_taken_over_when_it_is_harmless(given: str, kept: bool) -> None:
    async with client_of(app_with()) as client:
        answer = await client.get("/healthz", headers={"X-Request-ID": given})
    assert (answer.headers["x-request-id"] == given) is kept


@pytest.mark.parametrize("path", ["/v1/tokens/", "/v1/tokens//", "//v1/tokens", "/v1/tokens/?next=1"])
async def test_a_slash_too_many_is_not_found_and_never_redirected(path: str) -> None:
    router = APIRouter(prefix="/v1")

    @router.post("/tokens")
    async def create_token() -> str:
        return "token"

    async with client_of(app_with(router)) as client:
        answer = await client.post(f"http://inner.example{path}", json={"password": "secret"})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert "location" not in answer.headers


@pytest.mark.parametrize(("given", "noted"), [("theirs-1", "theirs-1"), ("a b", None), ("x" * 65, None), ("", None)])
async def test_a_clients_own_id_is_noted_beside_ours_when_it_is_harmless(given: str, noted: str | None) -> None:
    router = APIRouter()

    @router.get("/noted")
    async def bound() -> dict[str, object]:
        return get_contextvars()

    async with client_of(app_with(router)) as client:
        headers = {"X-Request-ID": "ours", "X-Client-Request-ID": given}
        answer = await client.get("/noted", headers=headers)
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "ours"
    assert answer.json().get("client_request_id") == noted


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"Content-Encoding": "gzip"}, b"packed", 415),
        ({"Content-Encoding": "identity, BR"}, b"packed", 415),
        ([("Content-Encoding", "identity"), ("Content-Encoding", "zstd")], b"packed", 415),
        ({"Content-Encoding": "identity"}, b"plain", 200),
        ({"Content-Encoding": ""}, b"plain", 200),
        ({"Content-Encoding": "gzip"}, b"", 200),
        ({"X-Large": "x" * MAX_HEADERS_BYTES}, b"", 431),
        ({f"X-{number}": "x" * 1000 for number in range(66)}, b"", 431),
        ({"X-Large": "x" * (MAX_HEADERS_BYTES - 1000)}, b"", 200),
    ],
)
async def test_what_no_endpoint_reads_is_refused_before_any_is_asked(
    headers: dict[str, str], content: bytes, status: int
) -> None:
    router, reads = APIRouter(), []

    @router.post("/bodies")
    async def read(request: Request) -> None:
        reads.append(await request.body())

    async with client_of(app_with(router)) as client:
        answer = await client.post("/bodies", headers=headers, content=content)
    assert answer.status_code == status
    assert reads == ([content] if status == 200 else [])
    if status != 200:
        assert answer.json()["code"] in {ErrorCode.UNSUPPORTED, ErrorCode.FIELD_INVALID}
        assert answer.headers.get("accept-encoding") == ("identity" if status == 415 else None)


async def test_head_is_answered_by_what_answers_get_but_not_at_the_specifications_addresses() -> None:
    router, legacy = APIRouter(), APIRouter(route_class=LegacyRoute)
    methods = []

    @router.get("/things/{name}")
    async def get_thing(name: str, request: Request, response: Response) -> str:
        methods.append(request.method)
        response.headers["ETag"] = name
        return name

    @router.put("/things/{name}")
    @router.put("/written")
    @legacy.get("/plugin/add")
    async def write() -> None:
        methods.append("written")

    async with client_of(app_with(router, legacy)) as client:
        head = await client.head("/things/a")
        assert (head.status_code, head.headers["etag"]) == (200, "a")
        for path, allowed in (("/written", "PUT"), ("/plugin/add", "GET")):
            refused = await client.head(path)
            assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
        assert (await client.delete("/things/a")).headers["allow"] == "GET, HEAD, PUT"
        assert 'method="HEAD",route="/things/{name}",status="200"' in (await client.get("/metrics")).text
    assert methods == ["GET"]


async def test_a_failure_in_the_middle_of_an_answer_breaks_it_off() -> None:
    router = APIRouter()

    @router.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"half"
            raise LookupError

        return StreamingResponse(parts())

    async with client_of(app_with(router)) as client:
        with pytest.raises(LookupError):
            await client.get("/stream")


def test_the_openapi_document_shows_problem_documents_only() -> None:
    router = APIRouter()

    @router.get("/things/{number}")
    async def get_thing(number: int) -> int:
        return number

    document = app_with(router).openapi()
    assert set(document["paths"]) == {"/things/{number}"}
    answers = document["paths"]["/things/{number}"]["get"]["responses"]
    assert list(answers["422"]["content"]) == ["application/problem+json"]
    assert "Problem" in document["components"]["schemas"]
    assert "HTTPValidationError" not in str(document)


async def answer_to(status: int, body: list[bytes], **headers: str) -> tuple[Message, int]:
    """Return the beginning of an answer that reads no body, and how many pieces of the body are left."""
    pieces: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in body]
    pieces[-1]["more_body"] = False
    sent: list[Message] = []

    async def receive() -> Message:
        return pieces.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    lines = {"transfer-encoding": "chunked", **headers}
    raw = [(name.encode(), value.encode()) for name, value in lines.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": raw}
    await UnreadBodies(Response(status_code=status))(scope, receive, send)
    return sent[0], len(pieces)


async def test_what_an_answer_leaves_of_a_body_is_read_up_to_a_bound_and_more_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requests, "REST_BYTES", 10)
    for status, body, headers, left, is_told in (
        (401, [b"12345", b"6789"], {}, 0, False),
        (401, [b"12345", b"67890", b"1"], {}, 1, True),
        (401, [b"1", b"2"], {"expect": "100-continue"}, 2, True),
        (408, [b"1", b"2"], {}, 2, True),
    ):
        start, pieces = await answer_to(status, body, **headers)
        assert (pieces, UNREAD_BODY in Headers(raw=start["headers"])) == (left, is_told)


async def test_a_body_that_does_not_come_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "REST_S", 0.01)
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError("unreachable: nothing comes")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"5")]}
    await UnreadBodies(Response(status_code=401))(scope, receive, send)
    assert UNREAD_BODY in Headers(raw=sent[0]["headers"])
