"""What a failure of PostgreSQL blames: an item of the batch, a statement that takes too long, or the database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from tlim_runtime.database_errors import is_unavailable
from tlim_runtime.outages import DatabaseUnavailable

from message_store.errors import ItemRefused, SurveyOutdated

_REFUSALS = ("22", "23", "54")
"""SQLSTATE classes that blame the row: its data, a constraint, a size limit. Everything else is no fault of the row."""

_CANCELLED = "57014"  # nearly always by statement_timeout
_NOT_UNIQUE = "23505"
_NO_PARTITION = "23514"  # of all constraints, only this breach is our own fault: no partition for the seq exists yet


@asynccontextmanager
async def translated(*, slow: type[DatabaseUnavailable] = DatabaseUnavailable) -> AsyncIterator[None]:
    """Raise what the driver raises as ItemRefused, as DatabaseUnavailable, or as `slow` if the server has cancelled.

    A breach of a unique constraint is a SurveyOutdated: a plan writes no key that was found when it was looked up.
    """
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        sqlstate = getattr(error, "sqlstate", None)
        if _blames_the_row(error):
            refused = SurveyOutdated if sqlstate == _NOT_UNIQUE else ItemRefused
            raise refused(f"the database refuses it: {str(error).splitlines()[0]}") from error
        if sqlstate == _CANCELLED:
            raise slow(str(error)) from error
        if isinstance(error, TimeoutError) or is_unavailable(error):
            raise DatabaseUnavailable(str(error) or type(error).__name__) from error
        raise


def _blames_the_row(error: BaseException) -> bool:
    # asyncpg itself refuses values that it cannot encode, e.g. half a surrogate pair: such an error has no SQLSTATE
    if not isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError):
        return False
    sqlstate = getattr(error, "sqlstate", None) or ""
    return isinstance(error, ValueError) or (sqlstate.startswith(_REFUSALS) and sqlstate != _NO_PARTITION)
