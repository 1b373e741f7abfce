"""What the endpoints of reading ask for: the repositories on the request's session."""

from typing import Annotated

from fastapi import Depends

from message_store.dependencies import SessionDep
from message_store.reading.history_repository import HistoryReader


def history_reader(session: SessionDep) -> HistoryReader:
    """Give the repository of history."""
    return HistoryReader(session)


HistoryReaderDep = Annotated[HistoryReader, Depends(history_reader)]
