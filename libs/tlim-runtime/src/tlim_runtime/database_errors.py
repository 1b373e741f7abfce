"""What the driver of PostgreSQL raises: a failure that passes by itself, or a mistake in the statement or the data."""

import asyncpg
import sqlalchemy.exc

from tlim_runtime.outages import DatabaseUnavailable

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises."""

_UNAVAILABLE_CLASSES = ("08", "53", "57", "58", "40", "55P03")
"""SQLSTATE classes of failures that pass by themselves: connection, resources, operator intervention, system,
rollback. `55P03` is one code: lock not available."""


def is_unavailable(error: BaseException) -> bool:
    """Return whether a database exception means 'try again later', and not a mistake in the statement or the data."""
    if isinstance(error, DatabaseUnavailable):
        return True
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        return error.connection_invalidated or (error.orig is not None and is_unavailable(error.orig))
    if isinstance(error, sqlalchemy.exc.TimeoutError | TimeoutError):
        return True
    sqlstate = getattr(error, "sqlstate", None)
    if isinstance(sqlstate, str):
        return sqlstate.startswith(_UNAVAILABLE_CLASSES)
    return _is_lost_connection(error)


def _is_lost_connection(error: BaseException) -> bool:
    # asyncpg raises InterfaceError both for misuse and for a closed connection: only the text tells them apart.
    # It raises InternalClientError when the server closed the connection between two statements.
    if isinstance(error, asyncpg.InterfaceError) and "clos" in str(error):
        return True
    if isinstance(error, asyncpg.InternalClientError | ConnectionError):
        return True
    return error.__cause__ is not None and is_unavailable(error.__cause__)
