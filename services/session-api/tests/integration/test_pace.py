"""Changes of sessions are charged by the people who hear of them."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from session_api.settings import Settings
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_protocol.errors import ErrorCode
from tlim_runtime.errors import TooManyRequests

MakeSession = Callable[[], Awaitable[str]]

PEOPLE = [f"u{number}" for number in range(8)]


@pytest.fixture
def overrides() -> dict[str, Any]:
    return {"session_changes_per_user": "10/hour"}


@pytest.fixture
def make_session(as_user: Any) -> MakeSession:
    """Return a function: → id of a session of nine, which takes all but one of the ten that may hear in an hour."""

    async def make() -> str:
        async with as_user("root", scope="admin") as admin:
            for user_id in PEOPLE:
                await admin.put(f"/v1/users/{user_id}", json={"name": user_id})
        async with as_user("alice") as alice:
            made = await alice.post("/v1/sessions", json={"session_type": 1, "subscribers": PEOPLE})
        assert made.status_code == 201
        return str(made.json()["session_id"])

    return make


@pytest.fixture
async def session_id(make_session: MakeSession) -> str:
    return await make_session()


def assert_refused(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (429, ErrorCode.TOO_MANY_REQUESTS)
    assert int(answer.headers["Retry-After"]) > 0


def is_used_up(app: FastAPI) -> bool:
    """Whether this instance would refuse alice's next change."""
    try:
        app.state.pace.check("alice")
    except TooManyRequests:
        return True
    return False


async def test_who_has_told_many_waits_before_the_next_change(as_user: Any, session_id: str) -> None:
    async with as_user("alice") as alice:
        # a change may be larger than what is left, as a group of 10,000 is larger than any rest
        assert (await alice.patch(f"/v1/sessions/{session_id}", json={"session_name": "one"})).status_code == 200
        assert_refused(await alice.patch(f"/v1/sessions/{session_id}", json={"session_name": "two"}))
        assert_refused(await alice.post("/v1/sessions", json={"session_type": 1, "subscribers": PEOPLE[:1]}))
        assert_refused(await alice.delete(f"/v1/sessions/{session_id}"))
        told = (await alice.get(f"/v1/sessions/{session_id}")).json()
    assert (told["session_name"], told["version"]) == ("one", 2)


async def test_what_changes_nothing_costs_nothing(as_user: Any, session_id: str) -> None:
    async with as_user("alice") as alice:
        for _ in range(3):
            answer = await alice.patch(f"/v1/sessions/{session_id}", json={"add": PEOPLE[:1]})
            assert answer.status_code == 200


async def test_the_specification_s_addresses_cost_the_same_and_others_may_go_on(as_user: Any, session_id: str) -> None:
    async with as_user("alice") as alice:
        await alice.patch(f"/v1/sessions/{session_id}", json={"session_name": "one"})
        for address, given in (
            ("modifySession", {"session_id": session_id, "session_name": "two"}),
            ("addSession", {"session_type": "1", "subscribers": '[{"user_id":"u1"}]'}),
            ("deleteSession", {"session_id": session_id}),
        ):
            assert (await alice.post(f"/plugin/tlim/{address}", data=given)).status_code == 429
    async with as_user("u1") as other:
        assert (await other.patch(f"/v1/sessions/{session_id}", json={"session_name": "two"})).status_code == 200


async def test_what_was_told_through_one_instance_counts_at_the_others(
    running: Any, client_of: Any, as_user: Any, settings: Settings, make_session: MakeSession
) -> None:
    async with running(settings) as other, client_of(other, "alice") as there:
        session_id = await make_session()  # only now: what was told before the other one listened, it never hears
        async with as_user("alice") as alice:
            assert (await alice.patch(f"/v1/sessions/{session_id}", json={"session_name": "one"})).status_code == 200
        async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.05), reraise=True):
            with attempt:
                assert is_used_up(other)
        assert_refused(await there.patch(f"/v1/sessions/{session_id}", json={"session_name": "two"}))
