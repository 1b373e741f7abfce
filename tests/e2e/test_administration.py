"""What an administrator does over HTTP: the users directory, and the log of administrators' actions."""

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
from jwt import PyJWKSet
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_client.failures import ClientError, LoginRefusedError, NotReceivedError, RefusedError
from tlim_client.http import HttpClient
from tlim_client.inbox import Delivered
from tlim_devstack.stack import Stack
from tlim_protocol.errors import ErrorCode

from tests.e2e.clients.people import People
from tests.e2e.clients.websocket import WebDevice
from tests.e2e.conftest import XMPP


@pytest.fixture
def admin(people: People) -> HttpClient:
    return people.admin


@pytest.mark.proves(
    "POST /v1/users", "GET /v1/users", "PUT /v1/users/{user_id}", "DELETE /v1/users/{user_id}", ErrorCode.USER_UNKNOWN
)
async def test_users_are_imported_found_renamed_and_deactivated(people: People, admin: HttpClient) -> None:
    (alice,) = await people("alice")
    phone = await alice.device()
    start = f"hired-{secrets.token_hex(4)}"
    rows = [{"user_id": f"{start}-{number}", "name": f"员工 {number}"} for number in range(3)]

    done = [await admin.call("POST", "/v1/users", json={"users": rows}) for _ in range(2)]
    await admin.put_user(f"{start}-1", "李四")
    await admin.call("DELETE", f"/v1/users/{start}-2")
    found = [user async for user in admin.pages("/v1/users", prefix=start)]

    assert [answer["created"] for answer in done] == [3, 0]
    assert [(user["user_id"], user["name"], user["active"]) for user in found] == [
        (f"{start}-0", "员工 0", True),
        (f"{start}-1", "李四", True),
        (f"{start}-2", "员工 2", False),
    ]
    await phone.send_until_stored(alice.text_to(f"{start}-0", "welcome"))
    with pytest.raises(RefusedError) as refusal:
        await phone.send_until_stored(alice.text_to(f"{start}-2", "are you still there?"))
    assert refusal.value.code is ErrorCode.USER_UNKNOWN


@pytest.mark.proves("DELETE /v1/users/{user_id}")
async def test_who_is_deactivated_reads_and_writes_nothing_any_more(
    people: People, admin: HttpClient, stack: Stack, tmp_path: Path
) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    client = await alice.http()
    (tmp_path / "plan.txt").write_text("the plan")
    file_id = await client.upload(tmp_path / "plan.txt")
    await admin.call("DELETE", f"/v1/users/{alice.user_id}")

    with pytest.raises(RefusedError) as refusal:  # ejabberd's account is closed; Prosody's was made elsewhere
        await alice.http()
    closed = stack.xmpp.accounts_api is not None
    expected = (401, ErrorCode.NOT_ALLOWED) if closed else (403, ErrorCode.NOT_ALLOWED)
    assert (refusal.value.status, refusal.value.code) == expected
    for attempt in (
        partial(client.sessions),  # session-api
        partial(client.history, bob.user_id),  # message-store
        partial(client.download, file_id, tmp_path / "again.txt"),  # file-api
    ):
        assert (await _refusal_in_the_end(attempt)).status == 401
    if closed:
        with pytest.raises(LoginRefusedError):
            await alice.device()
        with pytest.raises(NotReceivedError):
            await phone.send_until_stored(alice.text_to(bob, "am I still here?"), give_up=5)
        assert receiver.inbox.all(Delivered) == []
    else:
        with pytest.raises(ClientError, match="forbidden"):
            await phone.fetch_token()
        told = await _refusal_in_the_end(lambda: phone.send_until_stored(alice.text_to(bob, "am I still here?")))
        assert told.code is ErrorCode.NOT_ALLOWED


@pytest.mark.skipif(XMPP != "ejabberd", reason="accounts are made elsewhere, and are closed there")
async def test_a_login_that_is_half_done_when_its_user_is_deactivated_ends(people: People, admin: HttpClient) -> None:
    (alice,) = await people("alice")
    async with WebDevice.of(alice, meanwhile=lambda: admin.call("DELETE", f"/v1/users/{alice.user_id}")) as device:
        assert await device.ended() == "policy-violation"


async def _refusal_in_the_end(attempt: Callable[[], Awaitable[Any]]) -> RefusedError:
    """Repeat an attempt until it is refused, and return the refusal."""
    async for again in AsyncRetrying(stop=stop_after_delay(60), wait=wait_fixed(1), reraise=True):
        with again:
            try:
                await attempt()
            except RefusedError as refusal:
                return refusal
            raise LookupError("it still succeeds")
    raise AssertionError("unreachable: the last attempt raises")


@pytest.mark.proves("GET /v1/audit", ErrorCode.NOT_ALLOWED)
async def test_what_an_administrator_did_is_written_down_and_only_administrators_read_it(
    people: People, admin: HttpClient
) -> None:
    (alice,) = await people("alice")
    client = await alice.http()

    await admin.put_user(alice.user_id, "Alice the Second")
    newest = next(iter((await admin.call("GET", "/v1/audit", params={"limit": 1}))["items"]))
    with pytest.raises(RefusedError) as refusal:
        await client.call("GET", "/v1/audit")

    assert newest["target"] == alice.user_id
    assert (refusal.value.status, refusal.value.code) == (403, ErrorCode.NOT_ALLOWED)


@pytest.mark.proves("POST /v1/users/import")
async def test_a_file_of_users_is_imported_and_who_has_a_password_can_log_in(
    people: People, stack: Stack, tmp_path: Path
) -> None:
    start = f"hired-{secrets.token_hex(4)}"
    file = tmp_path / "people.csv"
    makes_accounts = stack.xmpp.accounts_api is not None  # Prosody has no such API: its accounts come from elsewhere
    words = ["open sesame", "open sesame", "sesame street"] if makes_accounts else ["", "", ""]
    done = []
    for password, options in zip(words, ([], [], ["--reset-passwords"]), strict=True):
        file.write_text(f"user_id,name,password\n{start}-1,员工,{password}\nno@id,x,\n", encoding="utf-8")
        done.append(await _tlim_users_import(stack, file, *options))

    assert [(report["created"], report["unchanged"]) for report in done] == [(1, 0), (0, 1), (0, 1)]
    assert [[row["row"] for row in report["invalid"]] for report in done] == [[2]] * 3
    accounts = [(report["accounts_created"], report["accounts_changed"]) for report in done]
    assert accounts == ([(1, 0), (0, 0), (0, 1)] if makes_accounts else [(0, 0)] * 3)

    (alice,) = await people("alice")
    await (await alice.device()).send_until_stored(alice.text_to(f"{start}-1", "welcome"))
    if makes_accounts:
        async with HttpClient(stack.addresses.gateway) as hired:
            await hired.log_in(f"{start}-1", words[-1])
            (welcome,) = await hired.history(alice.user_id)
            assert welcome["body"] == [{"text": "welcome"}]


async def _tlim_users_import(stack: Stack, file: Path, *options: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("tlim"),
        *("users", "import", str(file), "--json", *options),
        env={**os.environ, "TLIM_ADMIN_TOKEN": stack.admin_token(), "TLIM_GATEWAY": stack.addresses.gateway},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 1  # a row was left out
    report: dict[str, Any] = json.loads(out)
    return report


@pytest.mark.proves("GET /.well-known/jwks.json", "POST /v1/tokens")
async def test_anybody_can_check_a_token_with_the_published_keys(people: People, stack: Stack) -> None:
    (alice,) = await people("alice")
    client = await alice.http()
    assert client.token is not None

    async with HttpClient(stack.addresses.gateway) as nobody:
        keys = PyJWKSet.from_dict(await nobody.call("GET", "/.well-known/jwks.json"))
    header = jwt.get_unverified_header(client.token)
    claims = jwt.decode(client.token, keys[header["kid"]], algorithms=[header["alg"]], options={"verify_aud": False})

    assert (header["alg"], claims["sub"]) == ("EdDSA", alice.user_id)
