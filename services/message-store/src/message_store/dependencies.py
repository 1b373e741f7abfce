"""What endpoints ask for."""

from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession
from tlim_runtime.auth import CurrentUser, current_user
from tlim_runtime.database import session_dependency

SessionDep = Annotated[AsyncSession, Depends(session_dependency, scope="function")]
CurrentUserDep = Annotated[CurrentUser, Depends(current_user)]
