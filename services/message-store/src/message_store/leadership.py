"""Dividing the work between the stores that run.

A store holds a lock in PostgreSQL for each part that it has. The locks last as long as its connection, and it writes on
that connection only. So a store that has lost its parts cannot commit anything.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from enum import StrEnum
from typing import Protocol

import asyncpg
from tlim_runtime.driver_urls import driver_url
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import DatabaseUnavailable, Unavailable
from tlim_runtime.pulse import waiting
from tlim_runtime.transactions import Connection

from message_store.locks import division_of, give_back, try_to_join, try_to_take
from message_store.shares import UPKEEP

logger = get_logger(__name__)

STATEMENT_TIMEOUT_S = 8.0
"""A batch takes milliseconds. The server cancels a slower statement, and the recorder looks for what makes it slow."""

SILENCE_S = 10.0
"""A connection that is silent for so long is dead, even if TCP still holds it open. The server's own time-out comes
first: otherwise we could not tell a slow statement from a lost connection."""

_SESSION = {
    "application_name": "message-store writer",
    # When the store's host vanishes, its locks must not stay: the server probes after 5 s and gives up after 15 s.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "2",
    "statement_timeout": f"{STATEMENT_TIMEOUT_S:.0f}s",
    "idle_in_transaction_session_timeout": "30s",
    "jit": "off",  # as in the pool: compiling takes longer than any statement of ours
}


class StoreWork(Protocol):
    """What a store does with a connection (duty.Term)."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Enter alone: nothing else uses the connection inside."""

    async def begin(self, part: int) -> None:
        """Begin with a part, whose lock the connection holds; raises Unavailable if that is not possible now."""

    async def end(self, group: int) -> None:
        """Finish what is in hand of a group, and do no more of it."""


Serve = Callable[[Connection], AbstractAsyncContextManager[StoreWork]]
"""Makes a store of a connection, from entering to leaving."""

Changed = Callable[[Sequence[int]], None]
"""Is told which parts this store has."""

Able = Callable[[], bool]
"""Whether a store can do anything at all: one that cannot leaves its share to others."""


class Role(StrEnum):
    """What this instance is at the moment."""

    STORE = "store"  # it has its share of the work, which may be nothing
    STANDBY = "standby"  # a store of the release before works, which shares nothing
    DISCONNECTED = "disconnected"


class Leadership:
    """Joins the stores and takes its share of the parts until the connection is lost, then joins again.

    `changed` is told which parts this store has.
    """

    def __init__(
        self, database_url: str, serve: Serve, poll: float, changed: Changed, able: Able = lambda: True
    ) -> None:
        self._dsn = driver_url(database_url)
        self._serve = serve
        self._poll = poll  # seconds
        self._changed = changed
        self._able = able
        self._parts: set[int] = set()
        self._failed: dict[int, str] = {}
        self.role = Role.DISCONNECTED

    @property
    def parts(self) -> Sequence[int]:
        """The parts that this store works on."""
        return sorted(self._parts)

    async def run(self) -> None:
        """Share the work until cancelled; then end all parts in order and give the locks back."""
        while True:
            try:
                if self._able():
                    await self._one_term()
            except (Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                logger.warning("no part of the work", reason=str(error) or type(error).__name__)
            except Exception:
                logger.exception("no part of the work")  # a mistake of ours must not end it for good
            finally:
                self._become(Role.DISCONNECTED)
            with waiting():
                await asyncio.sleep(self._poll)

    async def ping(self) -> None:
        """Raise Unavailable unless this instance stands by, or works on all that it should."""
        if self.role is Role.DISCONNECTED:
            raise DatabaseUnavailable("neither store nor standby: no connection to PostgreSQL, or no JetStream")
        for part, reason in self._failed.items():
            raise Unavailable(f"{_name(part)} cannot be begun: {reason}")

    async def _one_term(self) -> None:
        connection: Connection = await asyncpg.connect(
            self._dsn, timeout=self._connect_timeout(), command_timeout=SILENCE_S, server_settings=_SESSION
        )
        try:
            # We poll, because a statement that waits for the lock would hold a snapshot, and so hold back vacuum.
            while not await try_to_join(connection):
                self._become(Role.STANDBY)
                with waiting():
                    await asyncio.sleep(self._poll)
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            try:
                async with self._serve(connection) as work:
                    while self._able() and not lost.is_set():
                        await self._share(connection, work)
                        self._become(Role.STORE)
                        with waiting(), suppress(TimeoutError):
                            async with asyncio.timeout(self._poll):
                                await lost.wait()
            finally:
                self._parts.clear()
                self._failed.clear()
        finally:
            await _close(connection)

    async def _share(self, connection: Connection, work: StoreWork) -> None:
        """Take parts that are free, and give up what is more than our share."""
        async with work.turn():
            division = await division_of(connection)
            taken = [part for part in division.wanted if await try_to_take(connection, part)]
        for part in self._failed.keys() - set(taken):
            del self._failed[part]  # it is another store's now
        for part in taken:
            await self._begin(connection, work, part)
        for group in division.surplus:
            self._parts.discard(group)
            await work.end(group)
            async with work.turn():
                await give_back(connection, group)
            logger.info("a group is given up", group=group)
        self._changed(self.parts)

    async def _begin(self, connection: Connection, work: StoreWork, part: int) -> None:
        try:
            await work.begin(part)
        except Unavailable as error:
            self._failed[part] = str(error)
            logger.warning("a part cannot be begun", part=_name(part), reason=str(error))
            async with work.turn():
                await give_back(connection, part)
            return
        self._parts.add(part)
        self._failed.pop(part, None)
        logger.info("a part is begun", part=_name(part))

    def _connect_timeout(self) -> float:
        return max(3.0, self._poll)

    def _become(self, role: Role) -> None:
        if role is not self.role:
            logger.info("leadership", role=role.value)
        self.role = role
        self._changed(self.parts)


def _name(part: int) -> str:
    return "upkeep" if part == UPKEEP else f"group {part}"


async def _close(connection: Connection) -> None:
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        await connection.close(timeout=2)
