"""One shard's way to the XMPP server: nothing is written any more when the shard may have another bridge."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from xmpp_bridge.component import ComponentDown

WRITE_CHARACTERS = 256 * 1024
"""The size of one write. It holds hundreds of stanzas, so waiting for the server costs little for each. It is small
enough for the server to store all of them within seconds."""


class SharedConnection(Protocol):
    """The connection to the XMPP server, which all shards share (component.Component)."""

    def send(self, stanzas: str) -> None: ...
    async def barrier(self) -> None: ...


class FencedLine:
    """Sends stanzas in order, after `check` has been called. `check` raises Unavailable, and then nothing is sent.

    The check and the write happen without a pause between them. A process that was stopped for a while checks first.
    """

    def __init__(self, connection: SharedConnection, check: Callable[[], None]) -> None:
        self._connection = connection
        self._check_lease = check
        self._is_closed = False

    def close(self) -> None:
        """Send nothing more: the connection is lost, and the next one is for shards that are taken then."""
        self._is_closed = True

    def check(self) -> None:
        """Raise Unavailable if nothing may be sent."""
        if self._is_closed:
            raise ComponentDown("the XMPP connection was lost")
        self._check_lease()

    def send(self, stanzas: str) -> None:
        """Write stanzas behind everything sent before; raises ComponentDown without a connection."""
        self.check()
        self._connection.send(stanzas)

    async def deliver(self, stanzas: Iterable[str]) -> None:
        """Send stanzas and return when the server has taken over every one of them; raises Unavailable.

        XEP-0114 has no acknowledgements, so a ping follows the stanzas. The stream is in order: an answer to the ping
        proves that the server has processed everything before it. After a failure nobody knows how far the server
        came: send all stanzas again.

        A ping follows each chunk, not only the last one. The server needs time to store a group's message for
        thousands of absent members, and that must not look like a server that has stopped.
        """
        for chunk in _chunks(stanzas):
            self.send(chunk)
            await self.barrier()

    async def barrier(self) -> None:
        """Return when the server has taken over everything sent so far; raises Unavailable."""
        self.check()
        await self._connection.barrier()
        self.check()


def _chunks(stanzas: Iterable[str]) -> Iterator[str]:
    chunk: list[str] = []
    size = 0
    for stanza in stanzas:
        chunk.append(stanza)
        size += len(stanza)
        if size >= WRITE_CHARACTERS:
            yield "".join(chunk)
            chunk, size = [], 0
    if chunk:
        yield "".join(chunk)
