"""Cutting work into portions of limited weight, because a single item may name thousands of people."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def portions(items: Sequence[T], weigh: Callable[[T], int], limit: int) -> Iterator[Sequence[T]]:
    """Yield the items in order, in portions that weigh at most `limit`; one heavy item may be a portion by itself."""
    start = weight = 0
    for position, item in enumerate(items):
        added = weigh(item)
        if added and weight + added > limit and position > start:
            yield items[start:position]
            start, weight = position, 0
        weight += added
    yield items[start:]
