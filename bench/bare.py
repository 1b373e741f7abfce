"""The bare endpoint beside which HTTP is measured: FastAPI and asyncpg, and the statements that our endpoint executes.

PostgreSQL says which statements these are: for one request it logs them with their parameters. The bare endpoint
executes the same in one transaction, and answers with the rows of the statement that has the most. It checks nothing
and translates nothing.
"""

import multiprocessing
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import uvicorn
from fastapi import FastAPI
from tlim_devstack import postgres
from tlim_devstack.stack import Stack
from tlim_devstack.waiting import accepts_connections, free_port, wait_until

LINE = re.compile(r"^\S+ \S+ \S+ \[(\d+)\] (LOG|DETAIL):  (.*)$", re.DOTALL)
STATEMENT = re.compile(r"(?:execute [^:]*|statement): (.*)", re.DOTALL)
PARAMETER = re.compile(r"\$\d+ = (NULL|'(?:[^']|'')*')")
EDGE = re.compile(r"BEGIN|COMMIT|ROLLBACK|;?$")
DRIVERS_OWN = re.compile(r"typeinfo_tree|'jit'")
"""Of asyncpg itself: it asks for the types of arrays once on each connection."""

POOL = 10
"""As many connections as our services have by default."""


@dataclass(frozen=True)
class Statement:
    """A statement, and the text of each of its parameters."""

    sql: str
    parameters: tuple[str | None, ...]


def statements_of(stack: Stack, ask: Callable[[], None], mark: str) -> list[Statement]:
    """Return what PostgreSQL executes for one request: on the connection on which a parameter contains `mark`."""
    _log_statements(stack, "all")
    begun = len(stack.logs("postgres"))
    ask()
    _log_statements(stack, "none")
    wait_until(lambda: "log_statement = 'none'" in stack.logs("postgres")[begun:], "PostgreSQL's log")
    return statements_in(stack.logs("postgres")[begun:], mark)


def statements_in(log: str, mark: str) -> list[Statement]:
    """Return the statements of the connection that is the first in a log of PostgreSQL to have `mark` in a parameter.

    What a request has caused is in the log behind its own statements, on connections that were there before.
    """
    connections: dict[str, list[Statement]] = {}
    marked: list[Statement] | None = None
    for process, kind, text in _entries(log):
        executed = connections.setdefault(process, [])
        if kind == "LOG" and (match := STATEMENT.match(text)):
            executed.append(Statement(match[1].strip(), ()))
        elif kind == "DETAIL" and executed:
            found = (one[1] for one in PARAMETER.finditer(text))
            values = tuple(None if one == "NULL" else one[1:-1].replace("''", "'") for one in found)
            executed[-1] = Statement(executed[-1].sql, values)
            if marked is None and any(mark in (value or "") for value in values):
                marked = executed
    if marked is None:
        raise RuntimeError(f"PostgreSQL's log has no statement with {mark}")
    return [one for one in marked if not EDGE.match(one.sql) and not DRIVERS_OWN.search(one.sql)]


def _log_statements(stack: Stack, which: str) -> None:
    admin = stack.postgres_admin
    postgres.run_sql(admin, f"ALTER SYSTEM SET log_statement = '{which}'; SELECT pg_reload_conf();")
    wait_until(lambda: postgres.run_sql(admin, "SHOW log_statement;") == which, "PostgreSQL's new setting")


def _entries(log: str) -> Iterator[tuple[str, str, str]]:
    for entry in re.split(r"\n(?!\t)", log):
        if match := LINE.match(entry):
            yield match[1], match[2], match[3].replace("\n\t", "\n")


# --- the endpoint, in a process of its own ----------------------------------------------------------------------------


@contextmanager
def running_bare(database_url: str, statements: Sequence[Statement], fresh: str = "") -> Iterator[str]:
    """Serve the endpoint. Gives its URL. `fresh` is an id that is a new one at each request, so that rows are new."""
    port = free_port()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_serve, args=(database_url, statements, fresh, port), daemon=True)
    process.start()
    try:
        wait_until(lambda: accepts_connections(port), "the bare endpoint")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.join()


def _serve(database_url: str, statements: Sequence[Statement], fresh: str, port: int) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(database_url, min_size=POOL, max_size=POOL) as pool:
            app.state.statements = [(one.sql, await _typed(pool, one)) for one in statements]
            app.state.pool = pool
            yield

    app = FastAPI(lifespan=lifespan)

    @app.api_route("/", methods=["GET", "POST"])
    async def answer() -> list[dict[str, Any]]:
        rows: list[asyncpg.Record] = []
        new = {fresh: str(uuid4())} if fresh else {}
        async with app.state.pool.acquire() as connection, connection.transaction():
            for sql, values in app.state.statements:
                found = await connection.fetch(sql, *(renewed(one, new) for one in values))
                rows = max(rows, found, key=len)
        return [dict(row) for row in rows]

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


async def _typed(pool: "asyncpg.Pool[asyncpg.Record]", statement: Statement) -> list[Any]:
    """Return the parameters of a statement as asyncpg takes them."""
    async with pool.acquire() as connection:
        kinds = (await connection.prepare(statement.sql)).get_parameters()
    return [_value(text, kind) for text, kind in zip(statement.parameters, kinds, strict=True)]


def _value(text: str | None, kind: asyncpg.Type) -> Any:  # noqa: ANN401 - whatever asyncpg takes
    if text is None:
        return None
    if kind.kind == "array":
        elements = re.findall(r'"((?:[^"\\]|\\.)*)"|([^,{}]+)', text)
        return [scalar(re.sub(r"\\(.)", r"\1", quoted) or plain, kind.name) for quoted, plain in elements]
    return scalar(text, kind.name)


def scalar(text: str, name: str) -> Any:  # noqa: ANN401 - whatever asyncpg takes
    """Return a parameter that PostgreSQL has logged, as asyncpg takes it for a type of this name."""
    if name.startswith("int"):
        return int(text)
    if name == "bytea":
        return bytes.fromhex(text.removeprefix("\\x"))
    if name.startswith("float"):
        return float(text)
    return text == "t" if name.startswith("bool") else text


def renewed(value: Any, new: Mapping[str, str]) -> Any:  # noqa: ANN401 - whatever asyncpg takes
    """Return a parameter of a logged request as a parameter of a new one: with a new id."""
    if isinstance(value, list):
        return [renewed(one, new) for one in value]
    if isinstance(value, bytes):
        return str(renewed(value.decode(), new)).encode()  # an event, as JSON
    if isinstance(value, str):
        return next((value.replace(old, now) for old, now in new.items()), value)
    return value
