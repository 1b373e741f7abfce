"""Parts of a bounded weight."""

import pytest
from message_store.portions import portions


@pytest.mark.parametrize(
    ("weights", "limit", "parts"),
    [
        ([0, 1, 1, 1, 3, 0, 3], 2, [[0, 1, 1], [1], [3, 0], [3]]),
        ([1, 1, 1], 3, [[1, 1, 1]]),
        ([9], 2, [[9]]),
        ([0, 0, 0], 0, [[0, 0, 0]]),
        ([], 2, [[]]),
    ],
)
def test_parts_keep_the_order_and_the_limit(weights: list[int], limit: int, parts: list[list[int]]) -> None:
    assert list(portions(weights, lambda weight: weight, limit)) == parts
