"""Roles and databases on a real server."""

from pydantic import SecretStr
from tlim_admin.databases import DATABASE_SERVICES, prepare
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
