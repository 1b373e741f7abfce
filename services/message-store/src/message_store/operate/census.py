"""Counts for operators what changes slowly: streams, sizes, mailboxes, and unread messages in two ways."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from tlim_protocol.streams import STREAMS, StreamName
from tlim_runtime.background import Repeated, running
from tlim_runtime.broker import Broker
from tlim_runtime.database import Database
from tlim_runtime.health import Ping
from tlim_runtime.logging import get_logger

from message_store.metrics import StoreMetrics
from message_store.operate.census_repository import CensusRepository
from message_store.reading.conversations_repository import ConversationsReader
from message_store.reading.conversations_service import (
    FROM_THE_START,
    UNREAD_CAP,
    UNREAD_LOOKED_AT,
    ConversationTables,
)

logger = get_logger(__name__)

STREAMS_EVERY_S = 10.0
SIZES_EVERY_S = 60.0

PEOPLE, CONVERSATIONS = 3, 5
"""A sample: so many people, and so many conversations of each. A round costs a few milliseconds."""

FEW = 200
"""The plain count reads each message, so it stops one after this many. The list's number is compared up to there."""


class Census:
    """Counts in rounds. Only one store does it, so that each number has one source."""

    def __init__(self, database: Database, broker: Broker, metrics: StoreMetrics) -> None:
        self._database = database
        self._broker = broker
        self._metrics = metrics

    async def look_at_streams(self) -> None:
        """Note how full the streams are; raises BrokerUnavailable."""
        for spec in STREAMS:
            if spec.name is not StreamName.LEASES:  # it holds a moment
                state = (await self._broker.answered(f"STREAM.INFO.{spec.name}"))["state"]
                self._metrics.stream(spec.name.value, state["messages"], state["bytes"], spec.max_bytes)

    async def look_at_tables(self) -> None:
        """Note sizes, and compare a sample of unread messages; raises DatabaseUnavailable."""
        size = await self._database.size()
        async with self._database.snapshot() as connection:
            census, reader = CensusRepository(connection), ConversationsReader(connection)
            self._metrics.kept(size, await census.mailboxes())
            people = await census.some_people(PEOPLE)
            self._metrics.drift(sum([await drift_of(census, reader, user_id) for user_id in people]))


class PlainCount(Protocol):
    """Counts unread messages one by one (census_repository.CensusRepository)."""

    async def unread(self, user_id: str, conversation_id: str, read_seq: int, /, *, look_at: int, at_most: int) -> int:
        """Return how many are behind the read cursor, among the newest `look_at` messages; stop at `at_most`."""


async def drift_of(census: PlainCount, reader: ConversationTables, user_id: str) -> int:
    """Return by how many messages the list of conversations and a plain count differ for a person."""
    entries, _ = await reader.entries(
        user_id, FROM_THE_START, CONVERSATIONS, count_to=UNREAD_CAP + 1, look_at=UNREAD_LOOKED_AT
    )
    differ = 0
    for entry in entries:
        place = (user_id, entry.conversation_id, entry.read_seq)
        plain = await census.unread(*place, look_at=UNREAD_LOOKED_AT, at_most=FEW + 1)
        listed = min(entry.unread, FEW + 1)
        if plain != listed:
            logger.error("unread drift", user_id=user_id, listed=entry.unread, counted=plain)
        differ += abs(plain - listed)
    return differ


@asynccontextmanager
async def counting(database: Database, broker: Broker, metrics: StoreMetrics) -> AsyncIterator[Sequence[Ping]]:
    """Count while entered. Gives the pings."""
    census = Census(database, broker, metrics)
    streams = Repeated("count of streams", census.look_at_streams, STREAMS_EVERY_S)
    tables = Repeated("count of rows", census.look_at_tables, SIZES_EVERY_S)
    async with running(streams), running(tables):
        yield streams.ping, tables.ping
