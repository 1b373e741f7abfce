"""Cutting what is to be done at once into parts of a bounded weight: people are named by the thousand."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def portions(items: Sequence[T], weigh: Callable[[T], int], limit: int) -> Iterator[Sequence[T]]:
    """Yield the items in order, in parts that weigh at most `limit`, or whose first item alone weighs more."""
    start = weight = 0
    for position, item in enumerate(items):
        added = weigh(item)
        if added and weight + added > limit and position > start:
            yield items[start:position]
            start, weight = position, 0
        weight += added
    yield items[start:]
