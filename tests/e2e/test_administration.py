"""What an administrator does over HTTP: the users directory, and the log of his own actions."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
from jwt import PyJWKSet
from tlim_client.failures import RefusedError
from tlim_client.http import HttpClient
from tlim_devstack.stack import Stack
from tlim_protocol.errors import ErrorCode

from tests.e2e.clients.people import People


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
    passwords = stack.xmpp.accounts_api is not None  # Prosody has no such API: its accounts come from elsewhere
    file.write_text(
        f"user_id,name,password\n{start}-1,员工,{'open sesame' if passwords else ''}\nno@id,x,\n", encoding="utf-8"
    )
    command = [str(Path(sys.executable).with_name("tlim")), "users", "import", str(file), "--json"]
    environment = {**os.environ, "TLIM_ADMIN_TOKEN": stack.admin_token(), "TLIM_GATEWAY": stack.addresses.gateway}

    for created in (1, 0):
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, check=False
        )
        report = json.loads(done.stdout)
        assert (done.returncode, report["created"], [one["row"] for one in report["invalid"]]) == (1, created, [2])
        assert report["accounts_created"] == created * passwords

    (alice,) = await people("alice")
    await (await alice.device()).send_until_stored(alice.text_to(f"{start}-1", "welcome"))
    if passwords:
        async with HttpClient(stack.addresses.gateway) as hired:
            await hired.log_in(f"{start}-1", "open sesame")
            (welcome,) = await hired.history(alice.user_id)
            assert welcome["body"] == [{"text": "welcome"}]


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
