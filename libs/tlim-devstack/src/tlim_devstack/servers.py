"""Real servers for a test session, from the wheels: NATS, PostgreSQL and S3 on free ports, in their own directory."""

import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tlim_admin.databases import roles
from tlim_admin.object_store import ADMIN_ACTIONS, S3Key
from tlim_protocol.streams import PERMISSIONS

from tlim_devstack import nats, postgres, s3
from tlim_devstack.processes import ServerProcess, dies_with_parent
from tlim_devstack.waiting import free_port

# Tests should not wait for the disk. Their data may be lost when the machine stops.
# Each test has a database. Autovacuum would visit all of them every minute, and change plans by chance.
# A login takes 3.5 ms of the processor with one round of SCRAM, and 6 ms with 4,096.
UNSAFE_BUT_FAST = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
    "scram_iterations=1",
    "max_connections=200",
)

PUBLISHED_KEYS = (
    'data:application/json,{"keys":[{"kid":"nobody","alg":"EdDSA","kty":"OKP","crv":"Ed25519",'
    '"x":"gJL1zs-lfwDH-P7GtJam_mXSzOerUZefVRK_D5VEbIQ"}]}'
)
"""The keys of tokens for a service whose tests show it none that is checked with them. Nobody has the private key."""


@dataclass(frozen=True)
class NatsServer:
    """A NATS server with one user per service, as in production, and the user `tests` that may do everything."""

    url: str
    passwords: dict[str, str]


@dataclass(frozen=True)
class PostgresServer:
    """A PostgreSQL server: its superuser, and the passwords of the roles `<service>` and `<service>_owner`."""

    admin: postgres.Login
    passwords: dict[str, str]

    def login(self, role: str, database: str) -> postgres.Login:
        return postgres.Login(self.admin.host, self.admin.port, role, self.passwords[role], database)


@dataclass(frozen=True)
class S3Server:
    """An S3 endpoint: the administrator's key, and a key that works in test buckets but may not create any."""

    endpoint: str
    admin: S3Key
    tests: S3Key


def nats_passwords() -> dict[str, str]:
    """Fresh passwords for every NATS user of the protocol library and for `tests`."""
    return {user: secrets.token_hex(16) for user in (*PERMISSIONS, nats.TEST_USER)}


def role_passwords() -> dict[str, str]:
    """Fresh passwords for the two PostgreSQL roles of every service with a database."""
    return {role: secrets.token_hex(16) for role in roles()}


def test_keys() -> tuple[S3Key, S3Key]:
    """Fresh S3 keys for `S3Server.admin` and `S3Server.tests`."""
    admin = S3Key("admin", secrets.token_hex(8), secrets.token_hex(16), ADMIN_ACTIONS)
    return admin, S3Key("tests", secrets.token_hex(8), secrets.token_hex(16), ("Read", "Write", "List"))


@contextmanager
def running_nats(directory: Path) -> Iterator[NatsServer]:
    """Run nats-server in `directory` until the block ends."""
    passwords, port = nats_passwords(), free_port()
    config = nats.write_config(directory, passwords)
    command = dies_with_parent(nats.command(config, directory / "data", port))
    process = ServerProcess("NATS", command, directory / "nats.log")
    try:
        process.wait_ready(lambda: nats.greets(port))
        yield NatsServer(f"nats://127.0.0.1:{port}", passwords)
    finally:
        process.stop()


@contextmanager
def running_postgres(directory: Path) -> Iterator[PostgresServer]:
    """Run PostgreSQL in `directory` until the block ends."""
    directory.mkdir(parents=True, exist_ok=True)
    password, port = secrets.token_hex(16), free_port()
    admin = postgres.Login("127.0.0.1", port, postgres.SUPERUSER, password)
    postgres.create_cluster(directory / "data", password)
    command = postgres.command(directory / "data", port, *UNSAFE_BUT_FAST)
    process = ServerProcess("PostgreSQL", command, directory / "postgres.log")
    try:
        process.wait_ready(lambda: postgres.answers(admin))
        passwords = role_passwords()
        postgres.create_roles(admin, passwords)
        yield PostgresServer(admin, passwords)
    finally:
        process.stop(signal.SIGINT)


@contextmanager
def running_s3(directory: Path) -> Iterator[S3Server]:
    """Run SeaweedFS in `directory` until the block ends."""
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    admin, tests = test_keys()
    identities = s3.write_identities(directory, [admin, tests])
    port, inner = free_port(), [free_port() for _ in range(s3.INNER_PORTS)]
    command = dies_with_parent(s3.command(data, identities, port, inner))
    process = ServerProcess("S3", command, directory / "s3.log", env=s3.secure(directory))
    endpoint = f"http://127.0.0.1:{port}"
    try:
        process.wait_ready(lambda: s3.takes_writes(endpoint, admin, "ready"))
        yield S3Server(endpoint, admin, tests)
    finally:
        process.stop(signal.SIGKILL)  # SIGTERM takes 15 s, and nobody needs the data any more
        s3.remove_sockets(port, inner)
