"""Limits the transfers that run in this process at once: each holds memory or a connection to S3."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tlim_runtime.errors import TooManyRequests
from tlim_runtime.outages import Unavailable

_RETRY_AFTER_S = 5

_KEPT = 5
"""One slot in five is kept for users without one, so that a few busy users never keep everybody else out."""


class AllBusy(Unavailable):
    """Too many run already, of all users together: there is no room for another."""


class Running:
    """Counts what runs: at most `per_user` for each user, and `at_most` altogether. `what` names it in refusals.

    The last fifth of the slots is for users without a running one.
    """

    def __init__(self, what: str, *, per_user: int, at_most: int) -> None:
        self._what = what
        self._per_user = per_user
        self._at_most = at_most
        self._users: Counter[str] = Counter()

    @contextmanager
    def one(self, user_id: str) -> Iterator[None]:
        """Count one as long as the block runs. Raises TooManyRequests, AllBusy."""
        if self._users[user_id] >= self._per_user:
            detail = f"at most {self._per_user} of your {self._what} may run at once"
            raise TooManyRequests(detail, retry_after=_RETRY_AFTER_S)
        slots = self._at_most - (self._at_most // _KEPT if self._users[user_id] else 0)
        if self._users.total() >= slots:
            raise AllBusy(f"{self._users.total()} {self._what} are running")
        self._users[user_id] += 1
        try:
            yield
        finally:
            self._users[user_id] -= 1
            if not self._users[user_id]:
                del self._users[user_id]
