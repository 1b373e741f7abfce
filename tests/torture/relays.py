"""The ways from processes to servers, as relays in a process of their own: busy clients do not slow them down."""

import asyncio
import multiprocessing
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Self

from tlim_devstack.severable import Severable

from tests.torture.plan import How

Way = tuple[str, str]
"""The name of a process, and that of the server's port."""

MEND = "mend"


class Relays:
    """One relay for each way; `targets` are the servers' ports."""

    def __init__(self, targets: Mapping[Way, int]) -> None:
        self._targets = dict(targets)
        self.ports: dict[Way, int] = {}

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_relay, args=(self._targets, theirs), daemon=True)
        self._process.start()
        self.ports = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    def disturb(self, way: Way, how: How) -> None:
        """Cut a way, or let it fall silent."""
        self._tell(way, how)

    def mend(self, way: Way) -> None:
        """Let everything pass again."""
        self._tell(way, MEND)

    def _tell(self, way: Way, what: str) -> None:
        self._pipe.send((way, what))


def _relay(targets: Mapping[Way, int], pipe: Connection) -> None:
    asyncio.run(_serve(targets, pipe))


async def _serve(targets: Mapping[Way, int], pipe: Connection) -> None:
    relays = {way: Severable(f"tcp://127.0.0.1:{port}") for way, port in targets.items()}
    for relay in relays.values():
        await relay.mend()
    pipe.send({way: relay.port for way, relay in relays.items()})
    while True:
        way, what = await asyncio.to_thread(pipe.recv)
        match what:
            case How.CUT:
                await relays[way].cut()
            case How.HUSH:
                relays[way].hush()
            case _:
                await relays[way].mend()
