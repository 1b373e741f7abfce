"""Electing the one instance that stores, while the others stand by.

The leader holds a lock in PostgreSQL, which lasts as long as its connection.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from enum import StrEnum

import asyncpg
from tlim_runtime.driver_urls import driver_url
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import DatabaseUnavailable, Unavailable
from tlim_runtime.pulse import waiting
from tlim_runtime.transactions import Connection

from message_store.locks import try_to_lead

logger = get_logger(__name__)

STATEMENT_TIMEOUT_S = 8.0
"""A batch takes milliseconds. The server cancels a slower statement, and the recorder looks for what makes it slow."""

SILENCE_S = 10.0
"""A connection that is silent for so long is dead, even if TCP still holds it open. The server's own time-out comes
first: otherwise we could not tell a slow statement from a lost connection."""

_SESSION = {
    "application_name": "message-store leader",
    # When the leader's host vanishes, its lock must not stay: the server probes after 5 s and gives up after 15 s.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "2",
    "statement_timeout": f"{STATEMENT_TIMEOUT_S:.0f}s",
    "idle_in_transaction_session_timeout": "30s",
    "jit": "off",  # as in the pool: compiling takes longer than any statement of ours
}

Lead = Callable[[Connection], AbstractAsyncContextManager[None]]
"""What a leader does, from entering to leaving, with the connection that holds the lock."""


class Role(StrEnum):
    """What this instance is at the moment."""

    LEADER = "leader"
    STANDBY = "standby"
    DISCONNECTED = "disconnected"


class Leadership:
    """Tries to become leader, leads until the connection is lost, then tries again."""

    def __init__(self, database_url: str, lead: Lead, poll: float, changed: Callable[[Role], None]) -> None:
        self._dsn = driver_url(database_url)
        self._lead = lead
        self._poll = poll  # seconds
        self._changed = changed
        self.role = Role.DISCONNECTED

    async def run(self) -> None:
        """Try to lead, and lead, until cancelled; then end the duty in order and give the lock back."""
        while True:
            try:
                await self._one_term()
            except (Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                logger.warning("no leadership", reason=str(error) or type(error).__name__)
            except Exception:
                logger.exception("no leadership")  # a mistake of ours must not end the election for good
            finally:
                self._become(Role.DISCONNECTED)
            with waiting():
                await asyncio.sleep(self._poll)

    async def ping(self) -> None:
        """Raise DatabaseUnavailable unless this instance leads or stands by."""
        if self.role is Role.DISCONNECTED:
            raise DatabaseUnavailable("neither leader nor standby: no connection to PostgreSQL")

    async def _one_term(self) -> None:
        connection: Connection = await asyncpg.connect(
            self._dsn, timeout=self._connect_timeout(), command_timeout=SILENCE_S, server_settings=_SESSION
        )
        try:
            # We poll, because a statement that waits for the lock would hold a snapshot, and so hold back vacuum.
            while not await try_to_lead(connection):
                self._become(Role.STANDBY)
                with waiting():
                    await asyncio.sleep(self._poll)
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            async with self._lead(connection):
                self._become(Role.LEADER)
                with waiting():
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
