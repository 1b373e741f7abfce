"""ejabberd's HTTP API makes accounts: it wants a secret, also from this machine, and talks to no web page."""

from typing import Any

import httpx
import pytest


async def ask(world: Any, **headers: str) -> httpx.Response:
    url = f"http://127.0.0.1:{world.xmpp.ports.xmpp_api}/api/check_account"
    account = {"user": "alice", "host": world.xmpp.client_side.domain}
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        return await http.post(url, json=account, headers=headers)


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic YWxpY2U6YWxpY2UncyBzZWNyZXQ="])
async def test_without_the_secret_nobody_gets_in(world: Any, authorization: str | None) -> None:
    answer = await ask(world, **({"Authorization": authorization} if authorization else {}))
    assert answer.status_code == httpx.codes.UNAUTHORIZED


async def test_with_the_secret_a_program_gets_in_and_no_web_page(world: Any) -> None:
    answer = await ask(world, Authorization=f"Bearer {world.xmpp.credentials.xmpp_api}", Origin="https://evil.example")
    assert (answer.status_code, answer.json()) == (httpx.codes.OK, 0)
    assert "Access-Control-Allow-Origin" not in answer.headers
