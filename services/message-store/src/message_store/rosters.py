"""Who is in a session, kept in the leader's memory: a group of thousands is not read again for every batch."""

from collections import OrderedDict
from collections.abc import Collection, Mapping

from message_store.values import Roster

MAX_MEMBERS = 500_000
"""Members of all rosters kept: some 50 bytes each, so 25 MB; beyond it the ones not used for longest are read again."""


class RosterCache:
    """The sessions used last, as the table has them: only the leader changes it, and says so after a commit."""

    def __init__(self, max_members: int = MAX_MEMBERS) -> None:
        self._max_members = max_members
        self._members = 0
        self._rosters: OrderedDict[str, Roster] = OrderedDict()

    def find(self, session_ids: Collection[str]) -> dict[str, Roster]:
        """Return those of the sessions that are kept."""
        found = {one: self._rosters[one] for one in session_ids if one in self._rosters}
        for session_id in found:
            self._rosters.move_to_end(session_id)
        return found

    def keep(self, rosters: Mapping[str, Roster]) -> None:
        """Keep what a batch used or changed, once it is committed."""
        for session_id, roster in rosters.items():
            known = self._rosters.pop(session_id, None)
            self._members += len(roster.members) - (len(known.members) if known is not None else 0)
            self._rosters[session_id] = roster
        while self._members > self._max_members and self._rosters:
            _, dropped = self._rosters.popitem(last=False)
            self._members -= len(dropped.members)

    def clear(self) -> None:
        """Forget everything: nobody knows whether the last transaction was committed."""
        self._rosters.clear()
        self._members = 0
