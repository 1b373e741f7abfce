"""Roles and databases on a real server."""

from dataclasses import replace

from pydantic import SecretStr
from tlim_admin.databases import DATABASE_SERVICES, XMPP, prepare
from tlim_devstack import postgres
from tlim_devstack.servers import PostgresServer


async def test_a_second_run_finds_everything_and_the_roles_can_log_in(postgres_server: PostgresServer) -> None:
    url = SecretStr(postgres_server.admin.url().replace("+asyncpg", ""))

    first = await prepare(url, postgres_server.passwords)
    again = await prepare(url, postgres_server.passwords)

    assert set(first) <= set(DATABASE_SERVICES)
    assert again == []
    for service in DATABASE_SERVICES:
        assert postgres.run_sql(postgres_server.login(service, service), "SELECT current_user;") == service


async def test_a_cluster_of_ejabberd_gets_a_database_that_its_role_owns(postgres_server: PostgresServer) -> None:
    url = SecretStr(postgres_server.admin.url().replace("+asyncpg", ""))
    passwords = {**postgres_server.passwords, XMPP: "of-ejabberd"}

    await prepare(url, passwords)
    assert await prepare(url, passwords) == []

    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database();"
    login = replace(postgres_server.admin, user=XMPP, password="of-ejabberd", database=XMPP)
    assert postgres.run_sql(login, owner) == XMPP
