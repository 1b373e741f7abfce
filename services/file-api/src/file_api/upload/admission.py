"""The limits of each user: uploads at once, uploads in a time, and bytes altogether."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from tlim_runtime.throttle import Throttle

from file_api.errors import QuotaExceeded
from file_api.files import Usage
from file_api.repository import Repository, Transaction
from file_api.running import Running


class Admission:
    """Lets uploads run and begin within each user's limits, and files be added within the user's quota.

    Every addition to what a user has happens under the user's lock. An upload reserves the bytes that it is known to
    need when it begins. So uploads at the same time cannot exceed the quota together.
    """

    def __init__(self, transaction: Transaction, running: Running, throttle: Throttle, *, quota_bytes: int) -> None:
        self._transaction = transaction
        self._running = running
        self._throttle = throttle
        self.quota_bytes = quota_bytes

    def one_more(self, owner_id: str) -> AbstractContextManager[None]:
        """Count an upload that runs as long as the block does, from the first byte that is read.

        Raises TooManyRequests; Unavailable when too many run altogether.
        """
        return self._running.one(owner_id)

    async def begin(self, owner_id: str, size: int, note: Callable[[Repository], Awaitable[None]]) -> int:
        """Let an upload of at least `size` bytes begin; `note` writes down, before its first byte, that it does.

        Returns how many bytes its owner has room for. Raises TooManyRequests, QuotaExceeded, Unavailable.
        """
        self._throttle.hit(owner_id)
        async with self._transaction() as tables:
            room = await self._room(tables, owner_id)
            if size > room:
                raise QuotaExceeded(self.quota_bytes)
            await note(tables)
        return room

    async def settle(self, tables: Repository, owner_id: str, size: int, reserved: int) -> None:
        """Let a file of `size` bytes be added in this transaction, which has ended an upload that reserved `reserved`.

        Raises QuotaExceeded.
        """
        if size > reserved and size > await self._room(tables, owner_id):
            raise QuotaExceeded(self.quota_bytes)

    async def usage(self, owner_id: str) -> Usage:
        """Tell what a user has. Raises Unavailable."""
        async with self._transaction() as tables:
            return await tables.usage.of(owner_id, datetime.now(UTC))

    async def _room(self, tables: Repository, owner_id: str) -> int:
        await tables.usage.lock(owner_id)
        usage = await tables.usage.of(owner_id, datetime.now(UTC))
        return max(0, self.quota_bytes - usage.stored_bytes - usage.reserved_bytes)
