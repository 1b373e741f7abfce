"""Fixtures with real servers, shared by the tests of all packages: one server per session, clean data per test.

If a Docker socket answers, the servers are containers. Otherwise they come from the Python wheels. The tests are the
same for both.
"""

import gc
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest
import pytest_asyncio
import structlog
from nats.aio.client import Client
from nats.js.errors import ServerError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential
from tlim_admin.databases import owner_of
from tlim_admin.object_store import REGION, ensure_bucket
from tlim_runtime.broker import Broker
from tlim_runtime.provision import provision

from tlim_devstack import containers, nats, postgres, s3, servers
from tlim_devstack.restartable import RestartableNats, RestartablePostgres
from tlim_devstack.servers import NatsServer, PostgresServer, S3Server

MakeDatabase = Callable[[str], str]
ConnectBroker = Callable[[str], Awaitable[Broker]]


@dataclass(frozen=True)
class S3Bucket:
    """An empty bucket of one test, with a key that may read, write, list and tag in it."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str
    region: str = REGION


_OURS = "TLIM_"
_KNOBS = ("TLIM_E2E_", "TLIM_TEST_", "TLIM_OPENFIRE_HOME")
"""The settings of the tests themselves: which XMPP server and where it is, how many histories, containers or not."""
_OTHERS = ("PG", "AWS_", "NATS_", "LC_")
"""Variables that libpq, boto3 and the NATS client read by themselves, and those of the locale."""
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_LOOKS = ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests apart from the shell that started pytest, and from any tlim system on this machine.

    Settings of a stack, personal profiles, proxies and the like are removed from the environment. Programs that tests
    start get the same environment.
    """
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    for name in os.environ.copy():
        is_setting = name.startswith((_OURS, *_OTHERS)) and not name.startswith(_KNOBS)
        if is_setting or name.upper() in _PROXIES or name in _LOOKS:
            patch.delenv(name)
    home = Path(tempfile.mkdtemp(prefix="tlim-tests-"))
    config.add_cleanup(partial(shutil.rmtree, home, ignore_errors=True))
    patch.setenv("HYPOTHESIS_STORAGE_DIRECTORY", str(config.rootpath / ".hypothesis"))  # not below where tests run
    patch.setenv("HOME", str(home))
    patch.delenv("XDG_CONFIG_HOME", raising=False)
    patch.setenv("LANG", "C.UTF-8")
    patch.setenv("TZ", "UTC")
    time.tzset()
    os.umask(0o022)


@pytest.fixture(autouse=True)
def empty_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in an empty directory. The clone's `.tlim` may belong to a system that is running."""
    directory = tmp_path_factory.getbasetemp() / "empty"
    directory.mkdir(exist_ok=True)
    monkeypatch.chdir(directory)


@pytest.fixture(autouse=True)
def plain_tracebacks() -> Iterator[None]:
    """Log failures briefly. structlog's default prints every local variable, which takes seconds for each failure."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    time_of = structlog.processors.TimeStamper("%H:%M:%S.%f", utc=True)
    structlog.configure(processors=[structlog.processors.add_log_level, time_of, renderer])
    yield
    structlog.reset_defaults()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Load the tests without looking for garbage, and leave out what is loaded whenever it is looked for later.

    All of it stays until the end. Every full collection would look through 300,000 objects, for 0.1 s.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder: tests/integration is `integration`, tests/e2e is `e2e`."""
    for item in items:
        for marker in ("integration", "e2e"):
            if marker in item.path.parent.parts:
                item.add_marker(marker)


@pytest.fixture(scope="session")
def test_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the session's directory for the servers' data."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def in_containers() -> bool:
    """Whether this session's servers are containers."""
    return containers.wanted()


@pytest.fixture(scope="session")
def nats_server(test_home: Path, in_containers: bool) -> Iterator[NatsServer]:
    """One NATS server with JetStream."""
    run = containers.running_nats if in_containers else servers.running_nats
    with run(test_home / "nats") as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server(test_home: Path, in_containers: bool) -> Iterator[PostgresServer]:
    """One PostgreSQL server with the roles of all services."""
    run = containers.running_postgres if in_containers else servers.running_postgres
    with run(test_home / "postgres") as server:
        yield server


@pytest.fixture(scope="session")
def s3_server(test_home: Path, in_containers: bool) -> Iterator[S3Server]:
    """One S3 server."""
    run = containers.running_s3 if in_containers else servers.running_s3
    with run(test_home / "s3") as server:
        yield server


@pytest.fixture(scope="session")
def database_template(postgres_server: PostgresServer) -> Callable[[str, str], str]:
    """Return a function: package name and SQL → name of a migrated database in which its owner ran this, made once."""

    @cache
    def template(package: str, filled_by: str) -> str:
        name = f"template_{package}_{secrets.token_hex(4)}"
        owner = postgres_server.login(owner_of(package), name)
        if filled_by:
            postgres.create_database(postgres_server.admin, name, package, template=template(package, ""))
            postgres.run_sql(owner, filled_by)
        else:
            postgres.create_database(postgres_server.admin, name, package)
            _migrate(package, owner.url())
        return name

    return template


def _migrate(package: str, url: str) -> None:
    """Migrate in this process, because it often has the libraries already. A process of its own takes 2 s for them."""
    from tlim_runtime.migrations import upgrade  # noqa: PLC0415 - takes 0.8 s, and most files of tests need no database

    upgrade(package, url)


@pytest.fixture
def restartable_nats(tmp_path: Path) -> Iterator[RestartableNats]:
    """Run a NATS server that the test may stop; it has no streams yet."""
    server = RestartableNats(tmp_path / "nats")
    server.start()
    yield server
    server.thaw()
    server.stop()


@pytest.fixture
def restartable_postgres(tmp_path: Path) -> Iterator[RestartablePostgres]:
    """Run a PostgreSQL server that the test may stop; it has no databases yet."""
    server = RestartablePostgres(tmp_path / "postgres")
    yield server
    server.stop()


@pytest.fixture
def make_database(postgres_server: PostgresServer, database_template: Callable[[str, str], str]) -> Callable[..., str]:
    """Return a function: package name → URL of a fresh migrated database, for the role that the service has.

    What the SQL `filled_by` puts into it is made once in a session, and copied.
    """

    def make(package: str, filled_by: str = "") -> str:
        name = f"{package}_{secrets.token_hex(4)}"
        postgres.create_database(postgres_server.admin, name, package, template=database_template(package, filled_by))
        return postgres_server.login(package, name).url()

    return make


@pytest.fixture
def owner_url(postgres_server: PostgresServer) -> Callable[[str, str], str]:
    """Return a function: (package, URL from `make_database`) → URL of the same database for the owner of its tables."""

    def url_of_owner(package: str, url: str) -> str:
        return postgres_server.login(owner_of(package), url.rpartition("/")[2]).url()

    return url_of_owner


@pytest.fixture
def make_empty_database(postgres_server: PostgresServer) -> MakeDatabase:
    """Return a function: package name → URL, for the owner, of a database without tables, to test migrations with."""

    def make(package: str) -> str:
        name = f"{package}_{secrets.token_hex(4)}"
        postgres.create_database(postgres_server.admin, name, package)
        return postgres_server.login(owner_of(package), name).url()

    return make


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> Iterator[S3Bucket]:
    """Lend an empty bucket and delete it afterwards. Each bucket takes a volume, and a small disk has few volumes."""
    name = f"test-{secrets.token_hex(6)}"
    ensure_bucket(s3_server.endpoint, s3_server.admin, name)
    yield S3Bucket(s3_server.endpoint, name, s3_server.tests.access_key, s3_server.tests.secret_key)
    s3.delete_bucket(s3_server.endpoint, s3_server.admin, name)


@pytest_asyncio.fixture
async def connect_broker(nats_server: NatsServer) -> AsyncIterator[ConnectBroker]:
    """Return a function: NATS user (a service's name, `provision`, `tests`) → Broker, closed after the test."""
    async with AsyncExitStack() as stack:

        async def connect(user: str) -> Broker:
            broker = await Broker.connect(nats_server.url, user, nats_server.passwords[user], name=f"test of {user}")
            stack.push_async_callback(broker.close)
            return broker

        yield connect


@pytest_asyncio.fixture
async def clean_jetstream(nats_server: NatsServer) -> NatsServer:
    """Return the NATS server with empty streams and fresh consumers, as the provisioning command makes them."""
    client = Client()
    await client.connect(nats_server.url, user=nats.TEST_USER, password=nats_server.passwords[nats.TEST_USER])
    try:
        jetstream = client.jetstream(timeout=30)  # a busy machine may take long to delete files
        for stream in await jetstream.streams_info():
            await jetstream.delete_stream(str(stream.config.name))
        await _provision(client)
    finally:
        await client.close()
    return nats_server


async def _provision(client: Client) -> None:
    """Provision, and try again while NATS refuses, or is too busy to answer in time.

    NATS answers a deletion before the stream's files are gone, and refuses the name until then. A busy disk may take
    many seconds for that.
    """
    refused = retry_if_exception_type((ServerError, TimeoutError))  # nats-py's own is one as well
    pauses = wait_exponential(multiplier=0.1, max=2)
    await AsyncRetrying(retry=refused, stop=stop_after_delay(60), wait=pauses, reraise=True)(provision, client)


@pytest_asyncio.fixture
async def broker(clean_jetstream: NatsServer, connect_broker: ConnectBroker) -> Broker:
    """Return a connected Broker that may do everything, on a clean JetStream."""
    del clean_jetstream  # only has to run first
    return await connect_broker(nats.TEST_USER)
