"""The delivery shards of a bridge: each has its consumer, its mailroom, and its own place in the stream."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from tlim_runtime.consumer import BatchConsumer

from xmpp_bridge.mailroom import Mailroom
from xmpp_bridge.subscribers import OutboxSubscriber


@dataclass(frozen=True)
class Shard:
    """What delivers to the people of one shard."""

    mailroom: Mailroom
    outbox: OutboxSubscriber
    consumer: BatchConsumer


class Shards:
    """All delivery shards, on one connection to the XMPP server."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards

    async def ping_deliveries(self) -> None:
        """Raise Unavailable while a shard does not deliver; for Health.add."""
        for shard in self._shards:
            await shard.consumer.ping()

    async def ping_mailboxes(self) -> None:
        """Raise Unavailable while somebody who is present may get nothing; for Health.add."""
        for shard in self._shards:
            await shard.mailroom.ping()

    def start_mailrooms(self) -> None:
        """Begin to listen to who is present; call it before the connection is made."""
        for shard in self._shards:
            shard.mailroom.start()

    async def start(self) -> None:
        """Begin to deliver."""
        for shard in self._shards:
            await shard.consumer.start()

    async def stop(self, *, is_connected: bool) -> None:
        """Finish the batches in hand and stop. Without a connection they cannot be finished, and are dropped."""
        consumers = [shard.consumer for shard in self._shards]
        await asyncio.gather(*(one.stop() if is_connected else one.abort() for one in consumers))
        for shard in self._shards:
            await shard.mailroom.stop()

    def hear(self, presence: Element) -> None:
        """Take a `<presence>` of the component's stream. Each mailroom picks what concerns its people."""
        for shard in self._shards:
            shard.mailroom.hear(presence)

    def went_up(self) -> None:
        """Note that there is a connection to the XMPP server."""
        for shard in self._shards:
            shard.mailroom.went_up()

    def went_down(self) -> None:
        """Note that it is lost."""
        for shard in self._shards:
            shard.consumer.go_back(shard.outbox.connection_lost())
            shard.mailroom.went_down()
