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
"""Some 5 ms of this process' time, where messages are short."""

MAX_CHARS = 100_000
"""Of the bodies of a batch, beside its last message: such a message has as many numbers, and a million of them take
PostgreSQL some 2.5 s where all is in memory. Texts of 80,000 characters were a batch that it never got through."""

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
                is_behind = await self.advance()
                # what is being stored comes first: however far this is behind, it takes half of the time at most
                await asyncio.sleep(time.monotonic() - started if is_behind else LOOK_EVERY_S)
            except DatabaseUnavailable as error:
                logger.warning("not indexing for search", reason=str(error))
                await asyncio.sleep(WAIT_AFTER_FAILURE_S)
            except Exception:
                logger.exception("not indexing for search")
                await asyncio.sleep(WAIT_AFTER_FAILURE_S)

    async def advance(self) -> bool:
        """Index the next rows of the log; return whether there may be more. Raises DatabaseUnavailable."""
        position, newest = await self._index.position()
        rows, more = await self._index.after(position, BATCH, MAX_CHARS) if newest > position else ([], False)
        if rows:
            # in a thread: the numbers of a long text take a tenth of a second, and messages would wait for them
            await self._index.add(await asyncio.to_thread(documents_of, rows))
            await self._index.finish(position, rows[-1].seq)
            position = rows[-1].seq
        # not every seq becomes a row: what a resend has drawn is no lag
        self._metrics.unindexed(max(0, newest - position) if more else 0)
        return more


def documents_of(rows: Sequence[Unindexed]) -> list[tuple[int, set[int]]]:
    """Return seq and numbers of those rows that can be found by a text."""
    documents = []
    for row in rows:
        text = "" if row.body is None else text_of(row.msg_type, from_json(row.body))
        if text:
            grams = grams_of_message(row.seq, row.conversation_id, row.sender, row.recipient, text)
            documents.append((row.seq, grams))
    return documents
