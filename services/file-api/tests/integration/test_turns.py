"""Many requests of one person at once do not take the places of others."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from tlim_protocol.errors import ErrorCode
from tlim_runtime.turns import WAITING

AT_ONCE = 2
REFUSED = 4
MANY = AT_ONCE + WAITING + REFUSED
ID = "0" * 32
DOORS = (
    f"/v1/files/{ID}/info", f"/v1/files/{ID}", f"/v1/files/{ID}/url", f"/v1/files/{ID}/thumbnail",
    f"/p/upload/mobileFileDownload?fileId={ID}",
)  # fmt: skip


@pytest.fixture
def changed_settings() -> dict[str, Any]:
    return {"requests_at_once_per_user": AT_ONCE}


@asynccontextmanager
async def nobody_looks_at_files(world: Any) -> AsyncIterator[None]:
    blocker = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))
    try:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE files IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await blocker.close()


@pytest.mark.parametrize("door", DOORS)
async def test_a_few_requests_of_one_person_run_a_few_wait_and_the_rest_are_refused(
    world: Any, eventually: Any, door: str
) -> None:
    async with world.client("alice") as alice, world.client("bob") as bob:
        async with nobody_looks_at_files(world):
            asked = [asyncio.create_task(alice.get(door)) for _ in range(MANY)]

            async def some_are_refused() -> None:
                assert sum(one.done() for one in asked) == REFUSED

            await eventually(some_are_refused)
            refused = next(one.result() for one in asked if one.done())
            assert (refused.status_code, refused.json()["code"]) == (429, ErrorCode.TOO_MANY_REQUESTS)
            assert int(refused.headers["Retry-After"]) > 0
            assert (await bob.get("/v1/uploads")).status_code == 200
        statuses = Counter([(await one).status_code for one in asked])
    assert statuses[429] == REFUSED
