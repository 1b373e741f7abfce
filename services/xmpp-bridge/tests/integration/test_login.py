"""A real login at a real XMPP server decides who gets a token."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.x509 import load_pem_x509_certificate
from tlim_devstack.certificates import ensure_certificates
from tlim_devstack.xmpp_servers import DOMAIN
from tlim_protocol.errors import ErrorCode
from tlim_runtime.auth import TokenVerifier

SECRETS = {"alice": "alice's secret", "bob": "密码 pässword"}


async def ask(bridge: Any, username: str, password: str) -> httpx.Response:
    answer: httpx.Response = await bridge.http.post("/v1/tokens", json={"username": username, "password": password})
    return answer


@pytest.mark.parametrize("username", ["alice", "Alice", "bob"])
async def test_the_right_password_gives_a_token_that_the_published_keys_verify(world: Any, username: str) -> None:
    async with world.ready_bridge() as bridge:
        answer = await ask(bridge, username, SECRETS[username.lower()])
        assert answer.status_code == 200, answer.text
        token = answer.json()
        assert (token["token_type"], token["expires_in"]) == ("Bearer", 3600)
        assert answer.headers["Cache-Control"] == "no-store"
        published = await bridge.http.get("/.well-known/jwks.json")
        assert "max-age" in published.headers["Cache-Control"]

        async def keys() -> Any:
            return published.json()

        verifier = TokenVerifier(keys, "tlim", "tlim")
        verifier.refuse(())
        user = await verifier.verify(token["access_token"])
        assert (user.user_id, user.is_admin) == (username.lower(), False)
        assert world.directory.seen == [username.lower()]


async def test_a_wrong_password_and_an_unknown_user_are_the_same_401(world: Any) -> None:
    async with world.ready_bridge() as bridge:
        wrong, unknown = await ask(bridge, "alice", "wrong"), await ask(bridge, "nobody", "wrong")
        assert (wrong.status_code, unknown.status_code) == (401, 401)
        assert wrong.json() == unknown.json()
        assert wrong.headers["WWW-Authenticate"] == unknown.headers["WWW-Authenticate"]
        assert world.directory.seen == []


@pytest.mark.parametrize("password", ["", "\u0000", "\u2028", "x" * 1000])
async def test_odd_passwords_are_only_wrong(world: Any, password: str) -> None:
    async with world.ready_bridge() as bridge:
        assert (await ask(bridge, "alice", password)).status_code == 401


async def test_a_stranger_cannot_fill_the_memory(world: Any) -> None:
    async with world.ready_bridge() as bridge:
        assert (
            await ask(bridge, "😀" * 256, "😀" * 1024)
        ).status_code == 401  # twelve bytes each: the most there can be
        assert (await ask(bridge, "alice", "x" * 16_384)).status_code == 413


async def test_too_many_attempts_are_told_when_to_come_back(world: Any) -> None:
    async with world.ready_bridge(token_attempts_per_user="1/minute") as bridge:
        await ask(bridge, "alice", SECRETS["alice"])
        answer = await ask(bridge, "alice", SECRETS["alice"])
        assert answer.status_code == 429
        assert answer.json()["code"] == ErrorCode.TOO_MANY_REQUESTS
        assert 1 <= int(answer.headers["Retry-After"]) <= 60


async def test_attempts_at_all_bridges_count_together(world: Any) -> None:
    limit = 4
    async with (
        world.ready_bridge(token_attempts_per_user=f"{limit}/hour") as first,
        world.ready_bridge(token_attempts_per_user=f"{limit}/hour") as other,
    ):
        assert {(await ask(first, "alice", "wrong")).status_code for _ in range(limit)} == {401}
        # it is told within milliseconds, and an answer to a wrong password takes half a second
        assert 429 in [(await ask(other, "alice", "wrong")).status_code for _ in range(limit)]


async def test_a_server_with_a_certificate_of_somebody_else_is_not_told_the_password(
    world: Any, tmp_path: Path
) -> None:
    foreign_authority, _ = ensure_certificates(tmp_path, DOMAIN)
    async with world.ready_bridge(xmpp_ca_file=foreign_authority) as bridge:
        answer = await ask(bridge, "alice", SECRETS["alice"])
        assert (answer.status_code, answer.json()["code"]) == (503, ErrorCode.UNAVAILABLE)


async def test_an_xmpp_server_that_is_down_is_no_wrong_password(world: Any) -> None:
    async with world.ready_bridge(xmpp_client_port=1) as bridge:
        answer = await ask(bridge, "alice", SECRETS["alice"])
        assert (answer.status_code, answer.json()["code"]) == (503, ErrorCode.UNAVAILABLE)


async def test_an_xmpp_server_that_hangs_is_given_up(world: Any) -> None:
    async with world.ready_bridge(login_timeout=0.5) as bridge:
        world.xmpp.freeze()
        try:
            answer = await ask(bridge, "alice", SECRETS["alice"])
        finally:
            world.xmpp.thaw()
        assert (answer.status_code, answer.json()["code"]) == (503, ErrorCode.UNAVAILABLE)


async def test_a_request_without_a_password_is_told_so(world: Any) -> None:
    async with world.ready_bridge() as bridge:
        answer = await bridge.http.post("/v1/tokens", json={"username": "alice"})
        assert (answer.status_code, answer.json()["field"]) == (422, "password")


async def test_the_end_of_the_certificate_that_clients_are_shown_is_a_metric(world: Any, eventually: Any) -> None:
    shown = load_pem_x509_certificate(world.xmpp.software.settings.certificate.read_bytes())
    async with world.ready_bridge() as bridge:

        async def told() -> None:
            lines = (await bridge.http.get("/metrics")).text.splitlines()
            [line] = [line for line in lines if line.startswith("tlim_certificate_expiry_timestamp_seconds{")]
            assert float(line.split()[-1]) == shown.not_valid_after_utc.timestamp()
            assert "tlim_xmpp_connection_up 1.0" in lines

        await eventually(told)
