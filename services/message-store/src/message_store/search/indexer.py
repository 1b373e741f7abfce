"""Indexing messages for search, after they are stored: search may be a second late, but storing is not slowed down."""

import asyncio
import time
from collections.abc import Sequence

from pydantic_core import from_json
from tlim_runtime.pulse import waiting

from message_store.metrics import StoreMetrics
from message_store.search.grams import grams_of_message, text_of
from message_store.search.repository import SearchIndex, Unindexed

BATCH = 250
"""Messages indexed at a time: about 5 ms of processor time when they are short."""

MAX_CHARS = 100_000
"""A batch ends with the message that brings its bodies to this many characters. A text has about as many numbers as
characters, and PostgreSQL writes a million numbers in about 2.5 s when the index is in memory. Without this limit,
a batch of texts of 80,000 characters each was never finished."""

INDEX_EVERY_S = 0.5
"""So soon after it was stored a message is found. A look that finds nothing new is one small statement or two."""


class Indexer:
    """Follows the log and indexes it. Only one store runs it, but two at once would do no harm."""

    def __init__(self, index: SearchIndex, metrics: StoreMetrics) -> None:
        self._index = index
        self._metrics = metrics

    async def round(self) -> bool:
        """Index the next rows of the log. If there may be more, rest as long as that took, and return True.

        Storing comes first: even when far behind, indexing takes at most half of the time. Raises DatabaseUnavailable.
        """
        started = time.monotonic()
        is_behind = await self.advance()
        if is_behind:
            with waiting():
                await asyncio.sleep(time.monotonic() - started)
        return is_behind

    async def advance(self) -> bool:
        """Index the next rows of the log; return whether there may be more. Raises DatabaseUnavailable."""
        position, newest = await self._index.position()
        self._metrics.unindexed(max(0, newest - position))  # also if the rest fails
        rows, more = await self._index.after(position, BATCH, MAX_CHARS) if newest > position else ([], False)
        if rows:
            # in a thread: computing the numbers of a long text takes 0.1 s, and new messages would wait that long
            await self._index.add(await asyncio.to_thread(documents_of, rows))
            await self._index.finish(position, rows[-1].seq)
            position = rows[-1].seq
        # without more rows there is no lag: some seqs never become a row, as a resend draws one, too
        self._metrics.unindexed(max(0, newest - position) if more else 0)
        return more


def documents_of(rows: Sequence[Unindexed]) -> list[tuple[int, set[int]]]:
    """Return the seq and the numbers of each row that has a searchable text."""
    documents = []
    for row in rows:
        text = "" if row.body is None else text_of(row.msg_type, from_json(row.body))
        if text:
            grams = grams_of_message(row.seq, row.conversation_id, row.sender, row.recipient, text)
            documents.append((row.seq, grams))
    return documents
