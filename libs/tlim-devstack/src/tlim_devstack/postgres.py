"""PostgreSQL 18 from its wheel: cluster, roles and databases of the services, and the command that runs it."""

import os
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tlim_admin.databases import database_statements, inner_statements, password_statements, role_statements

from tlim_devstack.failures import StackError
from tlim_devstack.layout import postgres_program
from tlim_devstack.privileges import INITDB, hand_over, not_as_root, user_of

SUPERUSER = "postgres"


@dataclass(frozen=True)
class Login:
    """A user, a server and a database. `url()` is the form that SQLAlchemy and the services take."""

    host: str
    port: int
    user: str
    password: str
    database: str = "postgres"

    def url(self) -> str:
        return f"postgresql+asyncpg://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}"


def create_cluster(data: Path, password: str) -> None:
    """Run initdb in `data` unless it was run there before: SCRAM passwords only, no Unix socket, UTF-8."""
    if not (data / "PG_VERSION").exists():
        _run_initdb(data, password)
    hand_over(data, "postgres")


def _run_initdb(data: Path, password: str) -> None:
    hand_over(data, INITDB)
    password_file = data.parent / f".initdb-{secrets.token_hex(4)}"
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    if os.geteuid() == 0:
        os.chown(password_file, user_of(INITDB), -1)
    options = ["-U", SUPERUSER, f"--pwfile={password_file}", "--auth=scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8"]
    try:
        initdb = [str(postgres_program("initdb")), "-D", str(data), *options, "--no-sync", "--no-instructions"]
        done = subprocess.run(not_as_root(INITDB, initdb, data), capture_output=True, text=True, check=False, cwd="/")
    finally:
        password_file.unlink()
    if done.returncode != 0:
        raise StackError(f"initdb failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")


def command(data: Path, port: int, *settings: str) -> list[str]:
    """Return the command line of a server on the loopback address; `settings` are further `name=value` options."""
    fixed = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200", "logging_collector=off")
    options = [word for setting in (*fixed, *settings) for word in ("-c", setting)]
    # When we end, the kernel sends SIGINT. It is PostgreSQL's fast shutdown, and leaves no shared memory behind.
    server = [str(postgres_program("postgres")), "-D", str(data), "-p", str(port), *options]
    return not_as_root("postgres", server, data, parent_death="INT")


def run_sql(login: Login, script: str) -> str:
    """Run SQL statements through psql, each in its own transaction, and return what they printed, unaligned.

    Raises StackError with the server's own words at the first statement that fails.
    """
    done = subprocess.run(
        [
            str(postgres_program("psql")),
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            login.host,
            "-p",
            str(login.port),
            "-U",
            login.user,
            "-d",
            login.database,
            "-f",
            "-",
        ],
        input=script,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PGPASSWORD": login.password, "PGCONNECT_TIMEOUT": "5"},
    )
    if done.returncode != 0:
        raise StackError(f"PostgreSQL: {done.stderr.strip()}")
    return done.stdout.strip()


def answers(login: Login) -> bool:
    """Whether the server takes this login and answers a query."""
    try:
        return run_sql(login, "SELECT 1;") == "1"
    except StackError:
        return False


def create_roles(admin: Login, passwords: dict[str, str]) -> None:
    """Create the roles named in `passwords`, or set their passwords anew."""
    run_sql(admin, "\n".join([*role_statements(passwords), *password_statements(passwords)]))


def create_database(admin: Login, database: str, service: str, template: str = "template0") -> Login:
    """Create a database that belongs to the service's owner role. The service's own role may only change rows in it.

    Returns `admin`'s login to that database. With a template made by this function, its tables and grants are copied.
    """
    run_sql(admin, "\n".join(database_statements(database, service, template)))
    inside = Login(admin.host, admin.port, admin.user, admin.password, database)
    if template == "template0":
        run_sql(inside, "\n".join(inner_statements(service)))
    return inside


def database_exists(admin: Login, database: str) -> bool:
    """Whether the server has a database of that name."""
    return database in run_sql(admin, "SELECT datname FROM pg_database;").splitlines()
