"""Keeping the members of sessions in memory, so that large groups are not read again for every batch."""

import sys
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping

from message_store.values import Roster

MAX_BYTES = 64 * 1024**2
"""Memory for all rosters kept: enough for about 400,000 members of large groups, or 100,000 groups of two. Rosters that
were not used for the longest time are dropped."""

_PLACE = 200
"""Bytes that an entry of the ordered dictionary takes, besides its contents."""

_SEQ = 32  # bytes of an int


def weight_of(session_id: str, roster: Roster) -> int:
    """Return about how many bytes of memory a kept roster takes: 600 for two members, far more than their ids."""
    members = roster.members
    holders = sys.getsizeof(session_id) + sys.getsizeof(roster) + sys.getsizeof(members)
    return _PLACE + holders + sum(map(sys.getsizeof, members)) + _SEQ * (len(members) + 1)


class RosterCache:
    """The rosters used last, as this store has read or committed them.

    Another store may have changed a session since. So a plan holds only if the versions are those of the table, under
    the lock of the log (service.Recorder).
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._rosters: OrderedDict[str, tuple[Roster, int]] = OrderedDict()  # with their weight
        self.size = 0
        """Bytes that it takes, about."""

    def find(self, session_ids: Collection[str]) -> dict[str, Roster]:
        """Return those of the sessions that are kept."""
        found = {one: self._rosters[one][0] for one in session_ids if one in self._rosters}
        for session_id in found:
            self._rosters.move_to_end(session_id)
        return found

    def keep(self, rosters: Mapping[str, Roster]) -> None:
        """Keep what a batch used or changed, once it is committed."""
        for session_id, roster in rosters.items():
            known, weight = self._rosters.pop(session_id, (None, 0))
            self.size -= weight
            if roster is not known:  # weighing a large roster takes long, so only new ones are weighed
                weight = weight_of(session_id, roster)
            self._rosters[session_id] = (roster, weight)
            self.size += weight
        while self.size > self._max_bytes and self._rosters:
            _, (_, weight) = self._rosters.popitem(last=False)
            self.size -= weight

    def forget(self, session_ids: Iterable[str]) -> None:
        """Forget some sessions: another store has changed them."""
        for session_id in session_ids:
            _, weight = self._rosters.pop(session_id, (None, 0))
            self.size -= weight

    def clear(self) -> None:
        """Forget everything: nobody knows whether the last transaction was committed."""
        self._rosters.clear()
        self.size = 0
