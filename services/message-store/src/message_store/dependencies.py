"""What endpoints ask for."""

from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession
from tlim_runtime.auth import CurrentUser, current_user
from tlim_runtime.database import session_dependency

from message_store.repository import Reader

SessionDep = Annotated[AsyncSession, Depends(session_dependency, scope="function")]
CurrentUserDep = Annotated[CurrentUser, Depends(current_user)]


def reader(session: SessionDep) -> Reader:
    """Give the repository on the request's session."""
    return Reader(session)


ReaderDep = Annotated[Reader, Depends(reader)]
