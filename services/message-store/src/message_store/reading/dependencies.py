"""The dependencies of the reading endpoints: repositories on the request's database connection."""

from typing import Annotated

from fastapi import Depends

from message_store.dependencies import ConnectionDep
from message_store.reading.conversations_repository import ConversationsReader
from message_store.reading.history_repository import HistoryReader
from message_store.reading.ledger_repository import LedgerReader
from message_store.reading.sync_repository import SyncReader


async def history_reader(connection: ConnectionDep) -> HistoryReader:
    """Give the repository of history."""
    return HistoryReader(connection)


async def sync_reader(connection: ConnectionDep) -> SyncReader:
    """Give the repository of sync."""
    return SyncReader(connection)


async def conversations_reader(connection: ConnectionDep) -> ConversationsReader:
    """Give the repository of the list of conversations."""
    return ConversationsReader(connection)


async def ledger_reader(connection: ConnectionDep) -> LedgerReader:
    """Give the repository of the ledger."""
    return LedgerReader(connection)


HistoryReaderDep = Annotated[HistoryReader, Depends(history_reader)]
SyncReaderDep = Annotated[SyncReader, Depends(sync_reader)]
ConversationsReaderDep = Annotated[ConversationsReader, Depends(conversations_reader)]
LedgerReaderDep = Annotated[LedgerReader, Depends(ledger_reader)]
