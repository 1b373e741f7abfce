"""What endpoints ask for."""

from typing import Annotated

from fastapi import Depends
from tlim_runtime.auth import CurrentUser, current_user
from tlim_runtime.database import connection_dependency
from tlim_runtime.transactions import Connection

ConnectionDep = Annotated[Connection, Depends(connection_dependency, scope="function")]
CurrentUserDep = Annotated[CurrentUser, Depends(current_user)]
