"""Changes that take rights away: a change answered with success is in effect; otherwise it is undone, then refused."""

from collections.abc import Awaitable, Callable

from tlim_runtime.logging import get_logger
from tlim_runtime.outages import BrokerUnavailable
from tlim_runtime.outbox import PUBLISHED_TIMEOUT_S, OutboxRelay

logger = get_logger(__name__)

TakeBack = Callable[[str, int], Awaitable[bool]]
"""Takes back a version of a session and commits that. Returns False and does nothing if it was already published."""


class Revocations:
    """Checks NATS before a right is taken away; publishes the change before the answer (docs/decisions/removal.md)."""

    def __init__(self, relay: OutboxRelay, take_back: TakeBack) -> None:
        self._relay = relay
        self._take_back = take_back

    async def require_broker(self) -> None:
        """Raise BrokerUnavailable unless a change could be published now. Call it before anything is changed."""
        await self._relay.require_broker()

    async def confirm(self, session_id: str, version: int) -> None:
        """Return when JetStream has the committed version; raise BrokerUnavailable if it was taken back instead."""
        if await self._relay.flush(PUBLISHED_TIMEOUT_S):
            return
        if not await self._take_back(session_id, version):
            return  # published while we were about to give up
        logger.warning("a change was taken back that could not be told", session_id=session_id, version=version)
        raise BrokerUnavailable("the change could not be told to those who enforce it; it was taken back")
