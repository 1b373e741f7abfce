"""Roles and databases on a real server."""

import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr
from tlim_admin import databases
from tlim_admin.databases import DATABASE_SERVICES, XMPP, owner_of, prepare
from tlim_admin.doctor.findings import State
from tlim_admin.doctor.postgres import rights
from tlim_devstack import postgres
from tlim_devstack.failures import StackError
from tlim_devstack.processes import ServerProcess
from tlim_devstack.servers import UNSAFE_BUT_FAST, PostgresServer, role_passwords
from tlim_devstack.waiting import free_port


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[postgres.Login]:
    """A server without our roles, which makes members of those who make roles. Returns its superuser."""
    admin = postgres.Login("127.0.0.1", free_port(), postgres.SUPERUSER, secrets.token_hex(16))
    postgres.create_cluster(tmp_path / "data", admin.password)
    settings = (*UNSAFE_BUT_FAST, "createrole_self_grant=set, inherit")
    process = ServerProcess(
        "PostgreSQL", postgres.command(tmp_path / "data", admin.port, *settings), tmp_path / "postgres.log"
    )
    try:
        process.wait_ready(lambda: postgres.answers(admin))
        yield admin
    finally:
        process.stop(signal.SIGINT)


async def test_a_second_run_finds_everything_and_the_roles_can_log_in(postgres_server: PostgresServer) -> None:
    url = SecretStr(postgres_server.admin.url().replace("+asyncpg", ""))

    first = await prepare(url, postgres_server.passwords)
    again = await prepare(url, postgres_server.passwords)

    assert set(first) <= set(DATABASE_SERVICES)
    assert again == []
    for service in DATABASE_SERVICES:
        assert postgres.run_sql(postgres_server.login(service, service), "SELECT current_user;") == service


async def test_nobody_makes_tables_in_a_database_before_the_rights_of_its_service_are_set(
    new_server: postgres.Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, passwords = SecretStr(new_server.url().replace("+asyncpg", "")), role_passwords()
    owner = replace(new_server, user="file_api_owner", password=passwords["file_api_owner"], database="file_api")
    service = replace(owner, user="file_api", password=passwords["file_api"])

    monkeypatch.setattr(databases, "inner_statements", lambda _: ["SELECT 1 / 0;"])
    with pytest.raises(databases.DatabasesError, match="division by zero"):
        await prepare(url, passwords)
    with pytest.raises(StackError, match="password authentication failed"):
        postgres.run_sql(owner, "CREATE TABLE too_early (n bigint);")

    monkeypatch.undo()
    await prepare(url, passwords)
    postgres.run_sql(owner, "CREATE TABLE in_time (n bigint);")
    assert postgres.run_sql(service, "SELECT count(*) FROM in_time;") == "0"


@pytest.mark.parametrize("right", ["SELECT", "INSERT", "UPDATE", "DELETE"])
async def test_the_doctor_sees_a_table_of_which_its_service_may_not_do_all(
    make_empty_database: Callable[[str], str], postgres_server: PostgresServer, right: str
) -> None:
    name = make_empty_database("session_api").rpartition("/")[2]
    owner, role = (postgres_server.login(one, name) for one in (owner_of("session_api"), "session_api"))
    postgres.run_sql(owner, "CREATE TABLE things (n bigint);")
    connection = await asyncpg.connect(role.url().replace("+asyncpg", ""))
    before = await rights("session-api", connection)
    postgres.run_sql(owner, f"REVOKE {right} ON things FROM session_api;")
    after = await rights("session-api", connection)
    await connection.close()

    assert (before.state, after.state, after.seen) == (State.OK, State.WRONG, "may not use things")


async def test_a_cluster_of_ejabberd_gets_a_database_that_its_role_owns(postgres_server: PostgresServer) -> None:
    url = SecretStr(postgres_server.admin.url().replace("+asyncpg", ""))
    passwords = {**postgres_server.passwords, XMPP: "of-ejabberd"}

    await prepare(url, passwords)
    assert await prepare(url, passwords) == []

    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database();"
    login = replace(postgres_server.admin, user=XMPP, password="of-ejabberd", database=XMPP)
    assert postgres.run_sql(login, owner) == XMPP


async def test_a_role_that_may_make_roles_and_databases_needs_no_superuser(new_server: postgres.Login) -> None:
    maker = replace(new_server, user="tlim_admin", password="of-the-maker")
    postgres.run_sql(new_server, f"CREATE ROLE {maker.user} LOGIN CREATEDB CREATEROLE PASSWORD '{maker.password}';")
    url, passwords = SecretStr(maker.url().replace("+asyncpg", "")), {**role_passwords(), XMPP: "of-ejabberd"}

    assert await prepare(url, passwords) == [*DATABASE_SERVICES, XMPP]
    passwords = {**passwords, **role_passwords()}
    assert await prepare(url, passwords) == []  # the next release has other passwords

    for service in DATABASE_SERVICES:
        owner, role = (
            replace(maker, user=name, password=passwords[name], database=service)
            for name in (owner_of(service), service)
        )
        postgres.run_sql(owner, "CREATE TABLE things (n bigint GENERATED ALWAYS AS IDENTITY, name text);")
        assert postgres.run_sql(role, "INSERT INTO things (name) VALUES ('one') RETURNING n;") == "1"
        with pytest.raises(StackError, match="must be owner"):
            postgres.run_sql(role, "DROP TABLE things;")
        with pytest.raises(StackError, match="permission denied for database"):
            postgres.run_sql(replace(role, database=XMPP), "SELECT 1;")
