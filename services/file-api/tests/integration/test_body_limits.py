"""What may be in a JSON body: it is read into memory before anybody asks for the token."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from file_api.direct_endpoints import MAX_BODY_BYTES, MAX_CHOICES_BYTES
from tlim_runtime.errors import PROBLEM_JSON

UNKNOWN = f"/v1/uploads/{'0' * 32}/complete"
LIMITS = [("/v1/uploads", MAX_BODY_BYTES), (UNKNOWN, MAX_CHOICES_BYTES)]


async def in_pieces(size: int) -> AsyncIterator[bytes]:
    """Spaces, whose number nobody knows beforehand."""
    for _ in range(0, size, 16_384):
        yield b" " * 16_384


@pytest.mark.parametrize(("path", "limit"), LIMITS)
@pytest.mark.parametrize("known", [True, False], ids=["length known", "length unknown"])
async def test_more_than_there_can_be_is_413_without_a_token_too(
    world: Any, path: str, limit: int, known: bool
) -> None:
    size = limit + 16_384
    async with world.client("") as stranger:
        del stranger.headers["Authorization"]
        body = b" " * size if known else in_pieces(size)
        answer = await stranger.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (413, PROBLEM_JSON)


async def test_the_choice_of_every_part_fits(world: Any) -> None:
    parts = [{"number": number, "etag": "x" * 128} for number in range(1, 10_001)]
    async with world.client("alice") as alice:
        assert (await alice.post(UNKNOWN, json={"parts": parts})).status_code == 404
