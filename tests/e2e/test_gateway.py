"""The gateway's own answers look like those of the services: problem documents that pages of our origins may read."""

import asyncio

import pytest
from tlim_client.http import HttpClient
from tlim_devstack.services import SERVICES
from tlim_devstack.stack import Stack
from tlim_protocol.errors import ERRORS, ErrorCode

from tests.e2e.clients.people import People
from tests.e2e.clients.web import WEB_ORIGIN, RawAnswer, ask_raw, connected

CORS = ("allow-origin", "expose-headers", "allow-methods", "allow-headers", "max-age")
PREFLIGHT = {"Access_Control_Request_Method": "PATCH", "Access_Control_Request_Headers": "authorization,if-match"}
NAMES = {
    "session-api": "/v1/sessions",
    "file-api": "/v1/files/usage",
    "message-store": "/v1/conversations",
    "xmpp-bridge": "/.well-known/jwks.json",
}
"""An address of each service that GET reads."""


def _assert_a_page_may_read(answer: RawAnswer) -> None:
    assert answer.headers["access-control-allow-origin"] == WEB_ORIGIN
    assert answer.headers["vary"] == "Origin"
    assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD"])
@pytest.mark.parametrize("target", ["/nowhere", "/v1/tokens/", "/readyz", "/metrics", "/v1/sessions/"])
async def test_what_is_nowhere_is_told_as_the_services_tell_it(stack: Stack, method: str, target: str) -> None:
    answer = await ask_raw(stack.addresses.gateway, method, target)
    assert answer.status in {404, 405}
    assert "location" not in answer.headers
    _assert_a_page_may_read(answer)
    if method != "HEAD":
        assert answer.problem["type"] == "about:blank"


async def test_the_gateway_says_that_it_runs_and_nothing_else(stack: Stack) -> None:
    for method, status in (("GET", 200), ("HEAD", 200), ("POST", 404), ("DELETE", 404)):
        answer = await ask_raw(stack.addresses.gateway, method, "/healthz")
        assert answer.status == status, method
        assert status == 404 or answer.body == b""


async def test_a_service_that_is_away_is_told_to_pages_too_and_preflights_go_on(disturbed_stack: Stack) -> None:
    stack = disturbed_stack
    stack.supervisor.stop(["session-api"])

    away = await ask_raw(stack.addresses.gateway, "GET", "/v1/sessions")
    preflight = await ask_raw(stack.addresses.gateway, "OPTIONS", "/v1/sessions/1", **PREFLIGHT)

    assert away.status == 503
    assert away.headers["retry-after"]
    code = ErrorCode.UNAVAILABLE
    named = {"type": f"urn:tlim:{code.value}", "title": ERRORS[code].meaning, "code": code.value}
    assert away.problem.items() >= named.items()
    _assert_a_page_may_read(away)
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == WEB_ORIGIN


@pytest.mark.parametrize("service", SERVICES)
async def test_the_gateway_allows_pages_what_each_service_does(stack: Stack, service: str) -> None:
    gateway, behind = stack.addresses.gateway, f"http://127.0.0.1:{stack.services.port(service)}"
    for method, more in (("OPTIONS", PREFLIGHT), ("GET", {})):
        target = NAMES[service] if method == "OPTIONS" else "/nowhere"
        ours = await ask_raw(gateway, method, target, **more)
        theirs = await ask_raw(behind, method, target, **more)
        for name in CORS:
            assert _listed(ours, name) >= _listed(theirs, name) - SAFE, name


SAFE = {"accept", "accept-language", "content-language"}
"""Headers that need no permission (Fetch standard, CORS-safelisted): the services name them besides."""


def _listed(answer: RawAnswer, name: str) -> set[str]:
    return {one.strip().lower() for one in answer.headers.get(f"access-control-{name}", "").split(",") if one.strip()}


async def test_pages_of_other_origins_read_nothing(stack: Stack) -> None:
    for method, target in (("GET", "/nowhere"), ("GET", "/v1/sessions"), ("OPTIONS", "/v1/sessions")):
        answer = await ask_raw(stack.addresses.gateway, method, target, Origin="https://web.example.evil", **PREFLIGHT)
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/v1/sessions", {"X_Long": "x" * 100_000}, 431),
        (f"/v1/sessions?cursor={'x' * 70_000}", {}, 414),
        ("/v1/sessions?cursor=张&broken=%zz", {}, 400),
        ("/v1/sessions?cursor=张三%", {}, 400),
    ],
)
async def test_what_is_too_long_or_unreadable_names_the_error(
    stack: Stack, target: str, headers: dict[str, str], status: int
) -> None:
    answer = await ask_raw(stack.addresses.gateway, "GET", target, **headers)
    assert answer.status == status
    assert answer.problem["code"] == ErrorCode.FIELD_INVALID
    _assert_a_page_may_read(answer)


async def test_a_compressed_body_is_refused_before_anybody_reads_it(stack: Stack) -> None:
    compressed = {"Content_Encoding": "gzip", "Content_Length": "0005"}
    # All services at once, because the gateway waits 5 s for a body that does not come.
    asked = [ask_raw(stack.addresses.gateway, "POST", NAMES[service], **compressed) for service in SERVICES]
    for answer in await asyncio.gather(*asked):
        assert answer.status == 415
        assert answer.problem["code"] == ErrorCode.UNSUPPORTED
        _assert_a_page_may_read(answer)


async def test_a_refused_upload_is_answered_while_its_body_is_still_on_its_way(stack: Stack) -> None:
    async with asyncio.timeout(20):
        answer = await ask_raw(stack.addresses.gateway, "POST", "/app/upload/mobileFileUpload", Content_Length="100000")
    assert answer.status == 401
    _assert_a_page_may_read(answer)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_body_that_nobody_reads_is_never_taken_for_the_next_request(stack: Stack, service: str) -> None:
    address = NAMES[service]
    hidden = f"GET {address} HTTP/1.1\r\nHost: chat.example\r\n\r\n"
    head = f"POST {address} HTTP/1.1\r\nHost: chat.example\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n"
    reader, writer = await connected(stack.addresses.gateway)
    writer.write((head + 3 * hidden).encode())
    async with asyncio.timeout(20):
        answers = await reader.read()
    writer.close()
    assert answers.count(b"HTTP/1.1 ") - answers.count(b"HTTP/1.1 100 ") == 1
    assert b"unread" not in answers.lower()


@pytest.mark.parametrize("service", SERVICES)
async def test_head_says_what_get_does_without_a_body(people: People, stack: Stack, service: str) -> None:
    (alice,) = await people("alice")
    token = f"Bearer {(await alice.http()).token}"
    full = await ask_raw(stack.addresses.gateway, "GET", NAMES[service], Authorization=token)
    head = await ask_raw(stack.addresses.gateway, "HEAD", NAMES[service], Authorization=token)
    assert (full.status, head.status, head.body) == (200, 200, b"")
    assert head.headers["content-type"] == full.headers["content-type"]
    assert (await ask_raw(stack.addresses.gateway, "HEAD", "/v1/sessions")).status == 401


async def test_head_makes_no_session_where_get_does(people: People, stack: Stack) -> None:
    (alice,) = await people("alice")
    http = await alice.http()
    for folder in ("plugin", "plugins"):
        target = f"/{folder}/tlim/addSession?session_type=1&subscribers=[]"
        answer = await ask_raw(stack.addresses.gateway, "HEAD", target, Authorization=f"Bearer {http.token}")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")
    assert [session async for session in http.pages("/v1/sessions")] == []


async def test_a_query_in_chinese_that_is_not_encoded_is_understood(people: People, stack: Stack) -> None:
    alice, bob = await people("alice", "bob")
    http = await alice.http()
    session_id = (await http.add_session([bob.user_id]))["session_id"]
    target = f"/plugin/tlim/modifySession?session_id={session_id}&session_name=春;节+快乐%21"
    answer = await ask_raw(stack.addresses.gateway, "GET", target, Authorization=f"Bearer {http.token}")
    assert answer.status == 200
    assert (await http.call("GET", f"/v1/sessions/{session_id}"))["session_name"] == "春;节 快乐!"


async def test_the_request_id_is_the_gateways_and_the_clients_is_noted_beside_it(stack: Stack) -> None:
    async with HttpClient(stack.addresses.gateway):
        first, second = [
            await ask_raw(stack.addresses.gateway, "GET", target, X_Request_ID="mine", X_Client_Request_ID="forged")
            for target in ("/v1/sessions", "/nowhere")
        ]
    assert "mine" not in {first.headers["x-request-id"], second.headers["x-request-id"]}
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
