"""One instance stores, the others stand by: a lock in PostgreSQL that lasts as long as its connection."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from enum import StrEnum

import asyncpg
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import DatabaseUnavailable, Unavailable

from message_store.locks import Connection, try_to_lead

logger = get_logger(__name__)

STATEMENT_TIMEOUT_S = 10.0
"""A batch takes milliseconds; a connection that is silent for so long is dead, whatever TCP says."""

_SESSION = {
    "application_name": "message-store leader",
    # The lock of a host that vanished without a word has to go with it: the server asks after 5 s, gives up after 15.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "2",
    "statement_timeout": f"{STATEMENT_TIMEOUT_S:.0f}s",
    "idle_in_transaction_session_timeout": "30s",
}

Lead = Callable[[Connection], AbstractAsyncContextManager[None]]
"""What a leader does, from entering to leaving, with the connection that holds the lock."""


class Role(StrEnum):
    """What this instance is at the moment."""

    LEADER = "leader"
    STANDBY = "standby"
    DISCONNECTED = "disconnected"


class Leadership:
    """Stands for leader until it is elected, leads until the connection is lost, stands again."""

    def __init__(self, database_url: str, lead: Lead, poll: float, changed: Callable[[Role], None]) -> None:
        self._dsn = database_url.replace("postgresql+asyncpg://", "postgresql://", 1)
        self._lead = lead
        self._poll = poll  # seconds
        self._changed = changed
        self.role = Role.DISCONNECTED

    async def run(self) -> None:
        """Stand and lead until cancelled; leaves the duty in order then, and gives the lock back."""
        while True:
            try:
                await self._one_term()
            except (Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                logger.warning("no leadership", reason=str(error) or type(error).__name__)
            except Exception:
                logger.exception("no leadership")  # a mistake of ours must not end the election for good
            finally:
                self._become(Role.DISCONNECTED)
            await asyncio.sleep(self._poll)

    async def ping(self) -> None:
        """Raise DatabaseUnavailable unless this instance leads or stands by."""
        if self.role is Role.DISCONNECTED:
            raise DatabaseUnavailable("neither leader nor standby: no connection to PostgreSQL")

    async def _one_term(self) -> None:
        connection: Connection = await asyncpg.connect(
            self._dsn, timeout=self._connect_timeout(), command_timeout=STATEMENT_TIMEOUT_S, server_settings=_SESSION
        )
        try:
            # Asked again and again: a statement that waits for the lock would hold a snapshot, and vacuum with it.
            while not await try_to_lead(connection):
                self._become(Role.STANDBY)
                await asyncio.sleep(self._poll)
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            async with self._lead(connection):
                self._become(Role.LEADER)
                await lost.wait()
        finally:
            await _close(connection)

    def _connect_timeout(self) -> float:
        return max(3.0, self._poll)

    def _become(self, role: Role) -> None:
        if role is not self.role:
            logger.info("leadership", role=role.value)
        self.role = role
        self._changed(role)


async def _close(connection: Connection) -> None:
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        await connection.close(timeout=2)
