import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Annotated, Any, cast

import asyncpg
import pytest
import pytest_asyncio
from fastapi import Depends, FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from structlog.testing import capture_logs
from tlim_devstack.servers import PostgresServer
from tlim_devstack.waiting import free_port
from tlim_runtime import database as runtime_database
from tlim_runtime import tested_pool
from tlim_runtime.database import Database, connection_dependency
from tlim_runtime.database_errors import is_unavailable
from tlim_runtime.errors import install_error_handlers
from tlim_runtime.outages import DatabaseUnavailable
from tlim_runtime.transactions import Connection

Work = Callable[..., Awaitable[None]]

INSERT = "INSERT INTO thing (name) VALUES ('one')"


@pytest_asyncio.fixture
async def database(make_empty_database: Callable[[str], str]) -> AsyncIterator[Database]:
    database = Database(make_empty_database("session_api"), pool_size=2)
    async with database.session() as session:
        await session.execute(
            text("CREATE TABLE thing (name text, CONSTRAINT uq_thing UNIQUE (name) DEFERRABLE INITIALLY DEFERRED)")
        )
    yield database
    await database.close()


async def names(database: Database) -> list[str]:
    async with database.session() as session:
        return list(await session.scalars(text("SELECT name FROM thing")))


async def end_all_connections(server: PostgresServer, database: Database) -> None:
    """What a restart of the server does to connections in the pool."""
    admin = await asyncpg.connect(
        host=server.admin.host, port=server.admin.port, user=server.admin.user, password=server.admin.password
    )
    name = database.engine.url.database
    await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
    await admin.close()


async def test_a_session_commits_on_success(database: Database) -> None:
    async with database.session() as session:
        await session.execute(text(INSERT))
    assert await names(database) == ["one"]


async def test_a_snapshot_shows_nothing_that_was_committed_meanwhile_and_leaves_later_sessions_as_they_were(
    database: Database,
) -> None:
    level = text("SHOW transaction_isolation")
    async with database.snapshot() as connection:
        assert await connection.fetch("SELECT name FROM thing") == []
        async with database.session() as other:
            await other.execute(text(INSERT))
        assert await connection.fetch("SELECT name FROM thing") == []
    assert await names(database) == ["one"]
    async with database.session() as one, database.session() as other:
        assert {await one.scalar(level), await other.scalar(level)} == {"read committed"}


async def test_a_connection_serves_one_session_after_the_other(database: Database) -> None:
    """Opening one costs PostgreSQL a process, and us milliseconds."""
    served = set()
    for _ in range(5):
        async with database.session() as session:
            served.add(await session.scalar(text("SELECT pg_backend_pid()")))
    assert len(served) == 1


@pytest.mark.parametrize(
    "mistake",
    [
        AttributeError("no such method"),
        asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
        asyncpg.InFailedSQLTransactionError("current transaction is aborted"),
    ],
    ids=lambda mistake: type(mistake).__name__,
)
async def test_a_test_of_connections_that_fails_by_a_mistake_is_in_the_log_and_costs_one_connection(
    database: Database, monkeypatch: pytest.MonkeyPatch, mistake: Exception
) -> None:
    async def mistaken(connection: Connection) -> None:
        if mistakes:
            raise mistakes.pop()
        await ask(connection)

    before = await both_connections(database)
    ask, mistakes = tested_pool._ask, [mistake]
    monkeypatch.setattr(tested_pool, "_ask", mistaken)
    with capture_logs() as lines:
        after = await both_connections(database)
    assert [line["event"] for line in lines] == ["the test of a pooled connection failed"]
    assert len(before & after) == 1


async def both_connections(database: Database) -> set[int]:
    """Use both connections of the pool at once; return how the server calls them."""
    pid = text("SELECT pg_backend_pid()")
    async with database.session() as one, database.session() as other:
        return {(await one.execute(pid)).scalar_one(), (await other.execute(pid)).scalar_one()}


async def insert(database: Database, *, times: int = 1, then: Callable[[], Awaitable[None]] | None = None) -> None:
    async with database.session() as session:
        for _ in range(times):
            await session.execute(text(INSERT))
        if then is not None:
            await then()
            await session.execute(text(INSERT))


async def insert_hot(database: Database, *, times: int = 1, then: Callable[[], Awaitable[None]] | None = None) -> None:
    async with database.hot_transaction() as connection:
        for _ in range(times):
            await connection.execute(INSERT)
        if then is not None:
            await then()
            await connection.execute(INSERT)


async def fail() -> None:
    raise LookupError


@pytest.mark.parametrize("work", [insert, insert_hot])
async def test_any_exception_rolls_back(database: Database, work: Work) -> None:
    with pytest.raises(LookupError):
        await work(database, then=fail)
    assert await names(database) == []


async def driver_of(opened: Any) -> Connection:
    raw = opened if isinstance(opened, asyncpg.Connection) else await (await opened.connection()).get_raw_connection()
    return cast("Connection", getattr(raw, "driver_connection", raw))


@pytest.mark.parametrize("is_asked_once_more", [False, True])
@pytest.mark.parametrize("kind", ["hot_transaction", "session"])
async def test_work_that_is_cancelled_ends_also_when_its_connection_is_lost(
    database: Database, kind: str, is_asked_once_more: bool
) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        async with getattr(database, kind)() as opened:
            connection = await driver_of(opened)
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                connection.terminate()
                if is_asked_once_more:
                    await connection.execute("SELECT 1")

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_hot_transaction_commits_on_success(database: Database) -> None:
    await insert_hot(database)
    assert await names(database) == ["one"]


@pytest.mark.parametrize("work", [insert, insert_hot])
async def test_what_comes_after_a_begin_that_nobody_waited_for_is_committed(
    database: Database, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL carries it out, and the connection goes back to the pool."""
    execute = asyncpg.Connection.execute

    async def given_up(connection: Connection, query: str, *arguments: Any, **options: Any) -> str:
        answer = await execute(connection, query, *arguments, **options)
        if query.startswith("BEGIN"):
            raise asyncio.CancelledError
        return answer

    monkeypatch.setattr(asyncpg.Connection, "execute", given_up)
    with pytest.raises(asyncio.CancelledError):
        await work(database)
    monkeypatch.undo()
    await work(database)
    beside = Database(database.engine.url.render_as_string(hide_password=False), pool_size=1)
    assert await names(beside) == ["one"]
    await beside.close()


async def test_a_mistake_in_the_data_is_not_an_outage(database: Database) -> None:
    with pytest.raises(IntegrityError):
        await insert(database, times=2)
    with pytest.raises(asyncpg.UniqueViolationError):
        await insert_hot(database, times=2)
    assert await names(database) == []


async def test_an_error_on_its_way_into_the_log_holds_no_parameter(database: Database) -> None:
    private = " ".join(["for", "bob", "only"])  # a traceback has lines of this file, too
    with pytest.raises(DBAPIError) as failure:
        async with database.session() as session:
            await session.execute(text("INSERT INTO nowhere VALUES (:text)"), {"text": private})
    logged = "".join(traceback.format_exception(failure.value))
    assert "INSERT INTO nowhere" in logged
    assert private not in logged


async def test_the_first_requests_after_a_restart_of_the_server_work(
    database: Database, postgres_server: PostgresServer
) -> None:
    await asyncio.gather(database.ping(), database.ping())
    await end_all_connections(postgres_server, database)
    await asyncio.gather(database.ping(), database.ping())
    await end_all_connections(postgres_server, database)
    async with database.hot_transaction() as connection:
        assert await connection.fetchval("SELECT 1") == 1


@pytest.mark.parametrize("work", [insert, insert_hot])
async def test_a_connection_lost_in_the_middle_is_an_outage(
    database: Database, postgres_server: PostgresServer, work: Work
) -> None:
    with pytest.raises(DatabaseUnavailable):
        await work(database, then=partial(end_all_connections, postgres_server, database))
    assert await names(database) == []


class Relay:
    """Stands before PostgreSQL, until the host of PostgreSQL vanishes and another takes its name."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._host_of_now = asyncio.Event()  # set: it has vanished
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        yield listener.sockets[0].getsockname()[1]
        listener.close()
        for writer in self._writers:
            writer.close()

    def lose_the_host(self) -> None:
        """Forward nothing more on the connections of now, and end none of them."""
        self._host_of_now.set()
        self._host_of_now = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        vanished = self._host_of_now
        answers, server = await asyncio.open_connection(self._server.admin.host, self._server.admin.port)
        self._writers += writer, server
        await asyncio.gather(_forward(reader, server, vanished), _forward(answers, writer, vanished))


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, vanished: asyncio.Event) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            if not vanished.is_set():
                writer.write(data)
                await writer.drain()
    writer.close()


@pytest_asyncio.fixture
async def relay(postgres_server: PostgresServer) -> AsyncIterator[tuple[Relay, int]]:
    relay = Relay(postgres_server)
    async with relay.open() as port:
        yield relay, port


def through(port: int, database: Database, statement_timeout_ms: int = 10_000) -> Database:
    url = database.engine.url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
    return Database(url, pool_size=2, statement_timeout_ms=statement_timeout_ms)


async def test_a_pool_whose_host_has_vanished_is_found_dead_by_its_first_user_and_gets_new_connections(
    database: Database, relay: tuple[Relay, int]
) -> None:
    host, port = relay
    far = through(port, database)
    await asyncio.gather(far.ping(), far.ping())
    host.lose_the_host()
    async with asyncio.timeout(30):
        await far.ping()
        await asyncio.gather(far.ping(), far.ping())
    await far.close()


@pytest.mark.parametrize("work", [insert, insert_hot])
async def test_a_statement_whose_host_vanishes_is_an_outage(
    database: Database, relay: tuple[Relay, int], work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_database, "SILENCE_S", 0.5)
    host, port = relay
    far = through(port, database, statement_timeout_ms=3_000)

    async def vanish() -> None:
        host.lose_the_host()

    async with asyncio.timeout(30):
        with pytest.raises(DatabaseUnavailable):
            await work(far, then=vanish)
        await far.ping()
    await far.close()


async def test_a_server_that_is_not_there_is_an_outage() -> None:
    database = Database(f"postgresql+asyncpg://nobody:nothing@127.0.0.1:{free_port()}/none")
    with pytest.raises(DatabaseUnavailable):
        await database.ping()
    with pytest.raises(DatabaseUnavailable):
        await insert_hot(database)
    await database.close()


async def test_a_statement_that_takes_too_long_is_an_outage(database: Database) -> None:
    # Opening a connection takes statements too, and they get no more time.
    hurried = Database(database.engine.url.render_as_string(hide_password=False), statement_timeout_ms=3_000)
    async with hurried.session() as session:
        with pytest.raises(DBAPIError) as in_session:
            await session.execute(text("SELECT pg_sleep(30)"))
        await session.rollback()
    async with hurried.hot_transaction() as connection:
        with pytest.raises(asyncpg.QueryCanceledError) as in_hot:
            await connection.execute("SELECT pg_sleep(30)")
    assert is_unavailable(in_session.value)
    assert is_unavailable(in_hot.value)
    await hurried.close()


async def test_an_exhausted_pool_is_an_outage(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database.engine.sync_engine.pool, "_timeout", 0.05)
    async with database.session(), database.session():
        with pytest.raises(DatabaseUnavailable):
            await database.ping()
    await database.ping()


def app_with(database: Database) -> FastAPI:
    app = FastAPI()
    app.state.database = database
    install_error_handlers(app)
    connection_dep = Annotated[Connection, Depends(connection_dependency, scope="function")]

    @app.post("/things")
    async def add(connection: connection_dep) -> str:
        await connection.execute(INSERT)
        return "stored"

    return app


async def test_a_failure_of_the_commit_is_told_to_the_client(
    database: Database, postgres_server: PostgresServer
) -> None:
    app = app_with(database)
    async with AsyncClient(transport=ASGITransport(app, raise_app_exceptions=False), base_url="http://test") as client:
        assert (await client.post("/things")).json() == "stored"
        duplicate = await client.post("/things")  # the deferred constraint refuses at the commit
        assert duplicate.status_code == 500
        await end_all_connections(postgres_server, database)
        assert (await client.get("/none")).status_code == 404
    assert await names(database) == ["one"]


async def test_an_unreachable_database_is_answered_503() -> None:
    database = Database(f"postgresql+asyncpg://nobody:nothing@127.0.0.1:{free_port()}/none")
    async with AsyncClient(transport=ASGITransport(app_with(database)), base_url="http://test") as client:
        answer = await client.post("/things")
    assert answer.status_code == 503
    await database.close()
