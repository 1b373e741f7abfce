"""What may be in a JSON body, which is read into memory: so much, and nothing of a stranger's."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from file_api.upload.direct_endpoints import MAX_BODY_BYTES, MAX_CHOICES_BYTES
from tlim_runtime.errors import PROBLEM_JSON

UNKNOWN = f"/v1/uploads/{'0' * 32}/complete"
LIMITS = [("/v1/uploads", MAX_BODY_BYTES), (UNKNOWN, MAX_CHOICES_BYTES)]


async def in_pieces(size: int) -> AsyncIterator[bytes]:
    """Spaces, whose number nobody knows beforehand."""
    for _ in range(0, size, 16_384):
        yield b" " * 16_384


@pytest.mark.parametrize(("path", "limit"), LIMITS)
@pytest.mark.parametrize("known", [True, False], ids=["length known", "length unknown"])
async def test_more_than_there_can_be_is_413(world: Any, path: str, limit: int, known: bool) -> None:
    size = limit + 16_384
    async with world.client("alice") as alice:
        body = b" " * size if known else in_pieces(size)
        answer = await alice.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (413, PROBLEM_JSON)


@pytest.mark.parametrize(("path", "limit"), LIMITS)
async def test_without_a_token_it_is_401_before_anything_is_read(world: Any, path: str, limit: int) -> None:
    async with world.client("") as stranger:
        del stranger.headers["Authorization"]
        answer = await stranger.post(path, content=in_pieces(2 * limit), headers={"Content-Type": "application/json"})
    assert answer.status_code == 401


async def test_the_choice_of_every_part_fits(world: Any) -> None:
    parts = [{"number": number, "etag": "x" * 128} for number in range(1, 10_001)]
    async with world.client("alice") as alice:
        assert (await alice.post(UNKNOWN, json={"parts": parts})).status_code == 404
