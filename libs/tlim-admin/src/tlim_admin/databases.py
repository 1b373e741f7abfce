"""The roles and databases of PostgreSQL: for each service one database, its owner, and the role of the service.

A cluster of ejabberd has a database as well, with one role: ejabberd sets an option of its database, so it owns it.
"""

from collections.abc import Iterable, Mapping

import asyncpg
from pydantic import SecretStr

DATABASE_SERVICES = ("session_api", "file_api", "message_store")
XMPP = "ejabberd"
"""The database of a cluster of ejabberd, and its role."""


class DatabasesError(Exception):
    """PostgreSQL refused; the text is its own."""


def owner_of(service: str) -> str:
    """Return the role that owns and migrates a service's tables. The service itself uses the role `service`."""
    return f"{service}_owner"


def roles() -> tuple[str, ...]:
    """Return the names of all roles, two for each service with a database."""
    return tuple(role for service in DATABASE_SERVICES for role in (service, owner_of(service)))


def role_statements(roles: Iterable[str]) -> list[str]:
    """Return the statements that create those of these roles that are missing, without passwords."""
    create = "DO $$ BEGIN CREATE ROLE {} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
    return [create.format(role) for role in roles]


def password_statements(passwords: Mapping[str, str | None]) -> list[str]:
    """Return the statements that set these passwords. With None nobody can log in as the role."""
    quoted = {role: "NULL" if one is None else "'" + one.replace("'", "''") + "'" for role, one in passwords.items()}
    return [f"ALTER ROLE {role} PASSWORD {password};" for role, password in quoted.items()]


def database_statements(database: str, service: str, template: str = "template0") -> list[str]:
    """Return the statements that create a database of the service's owner role. Only the service may connect as well.

    PostgreSQL runs CREATE DATABASE outside of a transaction only: send one statement at a time.
    """
    return [
        *_owned_database(database, owner_of(service), template),
        f"GRANT CONNECT ON DATABASE {database} TO {service};",
    ]


def _owned_database(database: str, owner: str, template: str) -> list[str]:
    """Return the statements that create a database to which nobody but its owner may connect."""
    return [
        f"CREATE DATABASE {database} TEMPLATE {template} OWNER {owner} STRATEGY FILE_COPY;",
        f"REVOKE ALL ON DATABASE {database} FROM PUBLIC;",
    ]


def inner_statements(service: str) -> list[str]:
    """Return the statements for a new database, run inside of it. The service's role may change rows, and no tables."""
    defaults = f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner_of(service)} GRANT"
    return [
        f"{defaults} SELECT, INSERT, UPDATE, DELETE ON TABLES TO {service};",
        f"{defaults} USAGE, SELECT ON SEQUENCES TO {service};",
    ]


async def prepare(url: SecretStr, passwords: Mapping[str, str]) -> list[str]:
    """Create what is missing, and set the passwords of all roles. Returns the databases that were created.

    The database of ejabberd is made if its role is among these. `url` is a superuser's, with any database:
    postgresql://user:password@host:port/name. Idempotent: a run that was interrupted is repeated as a whole. Until the
    rights in a new database are set, nobody can log in as its roles: migrations may be waiting for it, and the service
    would never get rights on a table that they make before. Raises DatabasesError when PostgreSQL refuses.
    """
    try:
        return await _prepare(url.get_secret_value(), passwords)
    except asyncpg.PostgresError as error:
        raise DatabasesError(str(error)) from error


async def _prepare(url: str, passwords: Mapping[str, str]) -> list[str]:
    outside = await asyncpg.connect(url)
    try:
        await _run(outside, role_statements(passwords))
        existing = {row["datname"] for row in await outside.fetch("SELECT datname FROM pg_database")}
        created = [service for service in DATABASE_SERVICES if service not in existing]
        for service in created:
            await _run(outside, password_statements(dict.fromkeys((service, owner_of(service)))))
            await _run(outside, database_statements(service, service))
        if XMPP in passwords and XMPP not in existing:
            await _run(outside, _owned_database(XMPP, owner=XMPP, template="template0"))
            created.append(XMPP)
        for service in DATABASE_SERVICES:
            inside = await asyncpg.connect(url, database=service)
            try:
                await _run(inside, inner_statements(service))
            finally:
                await inside.close()
        await _run(outside, password_statements(passwords))
    finally:
        await outside.close()
    return created


async def _run(connection: "asyncpg.Connection[asyncpg.Record]", statements: Iterable[str]) -> None:
    for statement in statements:
        await connection.execute(statement)
