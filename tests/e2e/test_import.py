"""Importing people with passwords into a real ejabberd: all good rows can log in, whatever came between."""

import asyncio
import csv
import io
import secrets
from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus

import httpx
import pytest
from tlim_client.http import HttpClient
from tlim_client.inbox import Delivered
from tlim_devstack.stack import Stack
from tlim_protocol.errors import ErrorCode

from tests.e2e.clients.flow import kill_and_wait
from tests.e2e.clients.people import People
from tests.e2e.conftest import XMPP

pytestmark = [
    pytest.mark.skipif(XMPP != "ejabberd", reason="only ejabberd has an API for accounts"),
    pytest.mark.proves("POST /v1/users/import"),
]

IDEOGRAPH = "\U00020000"
"""A character that SASLprep leaves as it is, with four bytes in UTF-8."""

GOOD = ("open sesame", "密码 pässword", "soft\u00adhyphen", "no\u00a0break", "שלום", IDEOGRAPH * 200)
REFUSED = (
    "e😀moji",
    "STRAẞE",
    "100₽",
    "mixed שלום1",
    "bell\u0007",
    "x" * 257,
    IDEOGRAPH * 256,  # 1,024 bytes: our own check lets it pass, and ejabberd says no
)


async def _import(admin: HttpClient, rows: Iterable[tuple[str, str]], **params: str) -> httpx.Response:
    text = io.StringIO()
    csv.writer(text).writerows([("user_id", "password"), *rows])
    return await admin.ask(
        "POST",
        "/v1/users/import",
        content=text.getvalue().encode(),
        headers={"Content-Type": "text/csv"},
        params=params,
        timeout=300,
    )


async def _can_log_in(stack: Stack, user: str, password: str) -> bool:
    async with HttpClient(stack.addresses.gateway) as client:
        answer = await client.ask("POST", "/v1/tokens", json={"username": user, "password": password})
    assert answer.status_code in {HTTPStatus.OK, HTTPStatus.UNAUTHORIZED}, answer.text
    return answer.is_success


def _new_people(count: int) -> dict[str, str]:
    """Return new user ids with their passwords."""
    return {f"hired-{secrets.token_hex(6)}": secrets.token_hex(8) for _ in range(count)}


async def test_a_password_that_ejabberd_refuses_is_an_invalid_row_and_all_others_log_in(
    people: People, stack: Stack
) -> None:
    rows = [(f"hired-{secrets.token_hex(6)}", password) for password in (*GOOD, *REFUSED)]

    report = (await _import(people.admin, rows)).json()

    numbers = range(len(GOOD) + 1, len(rows) + 1)
    assert [(one["row"], one["code"], one["field"]) for one in report["invalid"]] == [
        (number, ErrorCode.FIELD_INVALID, "password") for number in numbers
    ]
    assert "the XMPP server refuses" in report["invalid"][-1]["detail"]
    assert (report["created"], report["accounts_created"]) == (len(GOOD), len(GOOD))
    for user, password in rows[: len(GOOD)]:
        assert await _can_log_in(stack, user, password), password
    listed = [one["user_id"] async for one in people.admin.pages("/v1/users", prefix="hired-")]
    assert not {user for user, _ in rows[len(GOOD) :]}.intersection(listed)


async def test_an_account_that_was_there_keeps_its_password_unless_a_new_one_is_asked_for(
    people: People, stack: Stack
) -> None:
    alice, bob = await people("alice", "bob")
    phone = await alice.device()
    rows = [(alice.user_id, "another one"), *(newcomers := _new_people(1)).items()]

    kept = (await _import(people.admin, rows)).json()
    can = [await _can_log_in(stack, alice.user_id, password) for password in (alice.password, "another one")]
    reset = (await _import(people.admin, rows, reset_passwords="true")).json()

    assert (kept["accounts_created"], kept["accounts_changed"], can) == (1, 0, [True, False])
    assert (reset["accounts_created"], reset["accounts_changed"]) == (0, 2)
    assert not await _can_log_in(stack, alice.user_id, alice.password)
    for user, password in rows:
        assert await _can_log_in(stack, user, password)
    await phone.send_until_stored(alice.text_to(bob, "my session went on"))
    (newcomer,) = newcomers
    await phone.send_until_stored(welcome := alice.text_to(newcomer, "welcome"))
    device = await people.with_account(newcomer, newcomers[newcomer]).device()
    assert (await device.expect(Delivered)).envelope == welcome


async def test_of_two_imports_at_once_one_is_told_to_wait_and_everybody_can_log_in(
    people: People, stack: Stack
) -> None:
    newcomers = _new_people(200)

    first = asyncio.create_task(_import(people.admin, newcomers.items()))
    others = [await _import(people.admin, newcomers.items())]
    while not first.done():
        others.append(await _import(people.admin, newcomers.items()))

    answers = [await first, *others]
    said = Counter(answer.status_code for answer in answers)
    assert set(said) == {HTTPStatus.OK, HTTPStatus.CONFLICT}
    done = [answer.json() for answer in answers if answer.is_success]
    assert sum(report["accounts_created"] for report in done) == len(newcomers)
    assert (await _import(people.admin, newcomers.items())).json()["unchanged"] == len(newcomers)
    for user, password in list(newcomers.items())[::5]:
        assert await _can_log_in(stack, user, password)


async def test_accounts_that_a_killed_server_lost_are_made_by_the_same_import_again(
    people: People, disturbed_stack: Stack
) -> None:
    for _ in range(5):  # ejabberd writes new accounts a moment later: a slow machine may give it the time to do so
        newcomers = _new_people(40)
        first = (await _import(people.admin, newcomers.items())).json()
        await asyncio.to_thread(kill_and_wait, disturbed_stack, disturbed_stack.xmpp_name)
        again = (await _import(people.admin, newcomers.items())).json()
        assert (first["accounts_created"], again["unchanged"], again["invalid"]) == (40, 40, [])
        if again["accounts_created"]:
            break
    assert again["accounts_created"] > 0
    for user, password in newcomers.items():
        assert await _can_log_in(disturbed_stack, user, password)
