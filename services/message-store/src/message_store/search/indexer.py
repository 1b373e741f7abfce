"""Making what was said findable, behind the log and out of its way: a second late rather than a batch slower."""

import asyncio
import time
from collections.abc import Sequence

from pydantic_core import from_json
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import DatabaseUnavailable

from message_store.metrics import StoreMetrics
from message_store.search.grams import grams_of_message, text_of
from message_store.search.repository import SearchIndex, Unindexed

logger = get_logger(__name__)

BATCH = 250
"""Some 5 ms of this process' time: batches of messages to be stored wait no longer behind it."""

LOOK_EVERY_S = 0.5
WAIT_AFTER_FAILURE_S = 2.0


class Indexer:
    """Follows the log; the leader's, but two of them at once do no harm."""

    def __init__(self, index: SearchIndex, metrics: StoreMetrics) -> None:
        self._index = index
        self._metrics = metrics

    async def run(self) -> None:
        """Index for as long as this runs, from where the one before has come to."""
        while True:
            try:
                started = time.monotonic()
                count = await self.advance()
                # what is being stored comes first: however far this is behind, it takes half of the time at most
                await asyncio.sleep(LOOK_EVERY_S if count < BATCH else time.monotonic() - started)
            except DatabaseUnavailable as error:
                logger.warning("not indexing for search", reason=str(error))
                await asyncio.sleep(WAIT_AFTER_FAILURE_S)
            except Exception:
                logger.exception("not indexing for search")
                await asyncio.sleep(WAIT_AFTER_FAILURE_S)

    async def advance(self) -> int:
        """Index the next rows of the log; return how many there were. Raises DatabaseUnavailable."""
        position, newest = await self._index.position()
        rows = await self._index.after(position, BATCH) if newest > position else []
        if rows:
            await self._index.add(documents_of(rows))
            await self._index.finish(position, rows[-1].seq)
            position = rows[-1].seq
        # not every seq becomes a row: what a resend has drawn is no lag
        self._metrics.unindexed(max(0, newest - position) if len(rows) == BATCH else 0)
        return len(rows)


def documents_of(rows: Sequence[Unindexed]) -> list[tuple[int, set[int]]]:
    """Return seq and numbers of those rows that can be found by a text."""
    documents = []
    for row in rows:
        text = "" if row.body is None else text_of(row.msg_type, from_json(row.body))
        if text:
            grams = grams_of_message(row.seq, row.conversation_id, row.sender, row.recipient, text)
            documents.append((row.seq, grams))
    return documents
