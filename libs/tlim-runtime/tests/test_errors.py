from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import APIRouter, FastAPI
from httpx import ASGITransport, AsyncClient, Response
from starlette.exceptions import HTTPException
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime.app import build_app
from tlim_runtime.errors import (
    STATUS,
    LegacyRoute,
    NotAuthenticated,
    PayloadTooLarge,
    TooManyRequests,
    problem_responses,
    status_of,
)
from tlim_runtime.outages import BrokerUnavailable, DatabaseUnavailable
from tlim_runtime.settings import ServiceSettings


@asynccontextmanager
async def nothing(_app: FastAPI) -> AsyncIterator[None]:
    yield


async def ask(failure: Exception, path: str = "/v1/thing/1", method: str = "GET") -> Response:
    """Ask an application whose every endpoint fails like that: modern under /v1, the specification's under /plugin."""
    modern, legacy = APIRouter(prefix="/v1"), APIRouter(route_class=LegacyRoute)

    @modern.get("/thing/{number}")
    async def get_thing(number: int) -> int:
        if number:
            raise failure
        return number

    @legacy.get("/plugin/{number}")
    async def get_legacy(number: int) -> int:
        if number:
            raise failure
        return number

    app = build_app("test", "1", ServiceSettings.placeholder(), nothing, [modern, legacy])
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        return await client.request(method, path)


def test_every_code_has_a_status() -> None:
    assert set(STATUS) == set(ErrorCode)


@pytest.mark.parametrize("code", ErrorCode)
async def test_a_modern_endpoint_answers_every_refusal_as_a_problem_document(code: ErrorCode) -> None:
    answer = await ask(TlimError(code, "because", field="name"))
    assert answer.status_code == STATUS[code]
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["type"] == f"urn:tlim:{code.value}"
    assert document["status"] == STATUS[code]
    assert (document["code"], document["detail"], document["field"]) == (code.value, "because", "name")


@pytest.mark.parametrize("code", [code for code in ErrorCode if STATUS[code] < 500 and STATUS[code] != 429])
async def test_a_legacy_endpoint_answers_refusals_as_the_specification_wants(code: ErrorCode) -> None:
    answer = await ask(TlimError(code, "because"), "/plugin/1")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.json() == {"result": "fail", "result_detail": code.value, "detail": "because"}


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (NotAuthenticated("who?"), 401),
        (PayloadTooLarge("too much"), 413),
        (TooManyRequests("slowly", retry_after=7), 429),
        (TlimError(ErrorCode.TOO_MANY_REQUESTS, "slowly"), 429),
        (TlimError(ErrorCode.UNAVAILABLE, "later"), 503),
        (DatabaseUnavailable("gone"), 503),
    ],
)
@pytest.mark.parametrize("path", ["/v1/thing/1", "/plugin/1"])
async def test_some_statuses_stay_real_everywhere(failure: Exception, status: int, path: str) -> None:
    answer = await ask(failure, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_refusals_bring_their_headers() -> None:
    assert (await ask(NotAuthenticated("who?"))).headers["www-authenticate"].startswith("Bearer")
    assert (await ask(TooManyRequests("slowly", retry_after=7))).headers["retry-after"] == "7"
    assert status_of(PayloadTooLarge("too much")) == 413


async def test_an_outage_is_told_without_its_inner_reason() -> None:
    answer = await ask(BrokerUnavailable("nats://secret:4222 refused"))
    assert answer.json()["code"] == ErrorCode.UNAVAILABLE
    assert "secret" not in answer.text


@pytest.mark.parametrize("path", ["/v1/thing/1", "/plugin/1"])
async def test_a_mistake_of_ours_is_a_500_that_tells_nothing(path: str) -> None:
    answer = await ask(RuntimeError("password=secret"), path)
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"]


async def test_an_invalid_parameter_names_the_field() -> None:
    modern = await ask(RuntimeError(), "/v1/thing/one")
    assert modern.status_code == 422
    assert modern.json()["code"] == ErrorCode.FIELD_INVALID
    assert modern.json()["field"] == "number"
    legacy = await ask(RuntimeError(), "/plugin/one")
    assert legacy.status_code == 200
    assert legacy.json()["result_detail"] == ErrorCode.FIELD_INVALID


async def test_the_frameworks_refusals_are_problem_documents_too() -> None:
    missing = await ask(RuntimeError(), "/nowhere")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    wrong = await ask(RuntimeError(), method="DELETE")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD")
    assert (await ask(HTTPException(304, headers={"ETag": "x"}))).headers["etag"] == "x"


@pytest.mark.parametrize(
    "body",
    ['{"a":"张"}'.encode("gbk"), b"[" * 100_000, b'{"a":' + b"9" * 5_000 + b"}", b"{", b"\xff"],
    ids=["GBK", "nested", "5,000 digits", "cut off", "no text"],
)
async def test_a_body_that_is_no_json_in_utf_8_has_the_code_that_says_so(body: bytes) -> None:
    router = APIRouter()

    @router.post("/things")
    async def add(thing: dict[str, str]) -> dict[str, str]:
        return thing

    app = build_app("test", "1", ServiceSettings.placeholder(), nothing, [router])
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        answer = await client.post("/things", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, ErrorCode.JSON_INVALID)


def test_responses_are_described_by_status_with_all_their_codes() -> None:
    described = problem_responses(ErrorCode.SESSION_UNKNOWN, ErrorCode.FILE_UNKNOWN, statuses=(413,))
    assert list(described) == [404, 413]
    assert ErrorCode.SESSION_UNKNOWN in described[404]["description"]
    assert ErrorCode.FILE_UNKNOWN in described[404]["description"]
    assert described[413]["description"] == "Content Too Large"


def test_a_rate_limit_is_described_with_the_time_to_wait() -> None:
    described = problem_responses(ErrorCode.TOO_MANY_REQUESTS, ErrorCode.FILE_UNKNOWN)
    assert [list(response.get("headers", [])) for response in described.values()] == [[], ["Retry-After"]]


async def test_other_origins_see_errors_too() -> None:
    settings = ServiceSettings.placeholder().model_copy(update={"cors_origins": ["https://web.example"]})
    router = APIRouter()

    @router.get("/fail")
    async def fail() -> None:
        raise RuntimeError

    app = build_app("test", "1", settings, nothing, [router])
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        headers = {"Origin": "https://web.example"}
        failed = await client.get("/fail", headers=headers)
        preflight = await client.options("/fail", headers={**headers, "Access-Control-Request-Method": "PUT"})
        stranger = await client.get("/fail", headers={"Origin": "https://evil.example"})
    assert failed.headers["access-control-allow-origin"] == "https://web.example"
    assert preflight.status_code == 200
    assert "access-control-allow-origin" not in stranger.headers
