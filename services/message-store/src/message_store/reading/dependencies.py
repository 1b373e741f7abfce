"""The dependencies of the reading endpoints: repositories on the request's database session."""

from typing import Annotated

from fastapi import Depends

from message_store.dependencies import SessionDep
from message_store.reading.conversations_repository import ConversationsReader
from message_store.reading.history_repository import HistoryReader
from message_store.reading.ledger_repository import LedgerReader
from message_store.reading.sync_repository import SyncReader


async def history_reader(session: SessionDep) -> HistoryReader:
    """Give the repository of history."""
    return HistoryReader(session)


async def sync_reader(session: SessionDep) -> SyncReader:
    """Give the repository of sync."""
    return SyncReader(session)


async def conversations_reader(session: SessionDep) -> ConversationsReader:
    """Give the repository of the list of conversations."""
    return ConversationsReader(session)


async def ledger_reader(session: SessionDep) -> LedgerReader:
    """Give the repository of the ledger."""
    return LedgerReader(session)


HistoryReaderDep = Annotated[HistoryReader, Depends(history_reader)]
SyncReaderDep = Annotated[SyncReader, Depends(sync_reader)]
ConversationsReaderDep = Annotated[ConversationsReader, Depends(conversations_reader)]
LedgerReaderDep = Annotated[LedgerReader, Depends(ledger_reader)]
