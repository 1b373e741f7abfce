import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import APIRouter, FastAPI
from httpx import ASGITransport, AsyncClient
from starlette.responses import StreamingResponse
from tlim_runtime import health
from tlim_runtime.app import build_app
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
    assert 'tlim_http_request_seconds_count{method="GET",route="/v1/things/{name}",status="200"} 2.0' in text
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
