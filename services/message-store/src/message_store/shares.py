"""Which store has which part of the work: what one store sees of the others, and what it may take. No I/O.

The parts are the groups of shards of conversations, and the upkeep, which is not divided. The groups are shared
equally. A store that has more than its share gives groups up, and others take them.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from tlim_protocol.streams import STORE_GROUPS

UPKEEP = STORE_GROUPS
"""The number of the part that stays with one store: partitions, the search index, gathered receipts, counts."""

PARTS = range(STORE_GROUPS + 1)
"""All parts: the groups by their numbers, and the upkeep."""


class Division(NamedTuple):
    """Who is there and has what, as PostgreSQL sees it at one moment; stores are named by their server processes."""

    me: int
    stores: Collection[int]
    owners: Mapping[int, int]  # by part; without those that nobody has

    @property
    def share(self) -> int:
        """How many groups this store should have. The shares of all stores make up all groups."""
        stores = sorted({*self.stores, self.me})
        each, more = divmod(STORE_GROUPS, len(stores))
        return each + (stores.index(self.me) < more)

    @property
    def groups(self) -> Sequence[int]:
        """The groups of this store."""
        return [part for part, owner in sorted(self.owners.items()) if owner == self.me and part != UPKEEP]

    @property
    def wanted(self) -> Sequence[int]:
        """The free parts that this store should try to take, up to its share."""
        free = [group for group in range(STORE_GROUPS) if group not in self.owners]
        upkeep = [] if UPKEEP in self.owners else [UPKEEP]
        return upkeep + free[: max(self.share - len(self.groups), 0)]

    @property
    def surplus(self) -> Sequence[int]:
        """The groups that this store should give up, because others have less than their share."""
        return self.groups[self.share :]
