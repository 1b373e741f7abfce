"""Checks of PostgreSQL: logins, rights, locks, safety, connections, and the clock."""

import time
from collections.abc import Mapping
from pathlib import Path

import asyncpg
from tlim_runtime.transactions import Connection

from tlim_admin.backup import dumps
from tlim_admin.backup.manifest import BackupError
from tlim_admin.backup.tables import OwnerLogin, connected
from tlim_admin.databases import DATABASE_SERVICES
from tlim_admin.doctor.clocks import judge_clock
from tlim_admin.doctor.findings import Finding, doubtful, fine, wrong
from tlim_admin.secret_files import role_passwords
from tlim_admin.settings import PostgresSettings

NAME = "PostgreSQL"
OLDEST = 16
NEEDED_CONNECTIONS = 120
"""Two processes of each of the three services, which have 16, 13 and 21, two nodes of ejabberd with five each, and ten
for migrations and people."""

LOCKING = ("session_api", "message_store")
"""Imports of session-api and the election of message-store need locks that last as long as a connection."""

_PROBE_LOCK = 0x746C_696D_00FF  # beside those of message-store and maintenance

_SAFE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


async def look(settings: PostgresSettings, secrets: Path, logins: Mapping[str, OwnerLogin]) -> list[Finding]:
    """Look at the server, and at each service's database with both of its roles."""
    findings: list[Finding] = []
    passwords = role_passwords(secrets)
    for service in DATABASE_SERVICES:
        role = OwnerLogin(service, settings.url_of(service, service), passwords[service])
        async with connected(logins[service]) as owner, connected(role) as one, connected(role) as other:
            if service == DATABASE_SERVICES[0]:
                findings += await _server(one)
            if service in LOCKING:
                findings.append(locks_last(service, await _holds(one), await _is_refused(other)))
            findings.append(await _tables(service, owner))
            findings.append(await rights(service, one))
    findings.append(await _dumps(logins[DATABASE_SERVICES[0]]))
    return findings


def locks_last(service: str, is_held: bool, others_are_refused: bool) -> Finding:
    """Judge the locks that last as long as a connection. A pooler that changes connections breaks them."""
    if is_held and others_are_refused:
        return fine(f"{NAME} locks {service}", "a lock lasts as long as its connection")
    advice = "a pooler hands connections on: use session pooling, or connect to PostgreSQL itself"
    return wrong(f"{NAME} locks {service}", "a lock of a connection does not keep others away", advice)


async def _holds(connection: Connection) -> bool:
    await connection.execute("SELECT pg_advisory_lock($1)", _PROBE_LOCK)
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objsubid = 1"
    return bool(await connection.fetchval(held))


async def _is_refused(connection: Connection) -> bool:
    return not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _PROBE_LOCK)


async def _server(connection: Connection) -> list[Finding]:
    began = time.time()
    theirs = float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())"))
    findings = [judge_clock(NAME, theirs, began, time.time())]
    major = connection.get_server_version().major
    if major < OLDEST:
        findings.append(wrong(NAME, f"version {major}", f"install PostgreSQL {OLDEST} or newer"))
    else:
        findings.append(fine(NAME, f"version {major}"))
    for name, value in _SAFE.items():
        found = await connection.fetchval("SELECT current_setting($1)", name)
        if found not in {value, "remote_apply", "remote_write"}:
            advice = f"set {name} = {value}: a power cut would lose what people were told is stored"
            findings.append(wrong(f"{NAME} {name}", found, advice))
    most = int(await connection.fetchval("SELECT current_setting('max_connections')"))
    if most < NEEDED_CONNECTIONS:
        advice = f"set max_connections to {NEEDED_CONNECTIONS} or more, or lower TLIM_DATABASE_POOL_SIZE"
        findings.append(doubtful(f"{NAME} connections", f"at most {most}", advice))
    return findings


async def _tables(service: str, owner: Connection) -> Finding:
    name = f"{NAME} {service}"
    try:
        revision = await owner.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return wrong(name, "no tables", f"run the migrations of {service}")
    return fine(name, f"tables of {revision}")


async def rights(service: str, role: Connection) -> Finding:
    """Look whether the service's role may change rows, and no tables."""
    name = f"{NAME} role {service}"
    unreadable = await role.fetch("""
        SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
            AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
                AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))""")
    if unreadable:
        advice = "let tlim-admin databases set the rights, and run the migrations as the owner"
        return wrong(name, f"may not use {unreadable[0]['relname']}", advice)
    if await role.fetchval("SELECT has_schema_privilege('public', 'CREATE') OR rolsuper FROM pg_roles "
                           "WHERE rolname = current_user"):  # fmt: skip
        return doubtful(name, "may make tables", "use the role of the service, not the owner or a superuser")
    return fine(name, "may change rows, and no tables")


async def _dumps(login: OwnerLogin) -> Finding:
    """Look whether pg_dump gets in, as a backup needs: it is a program of its own, with its own way to the server."""
    name = f"{NAME} backup"
    try:
        await dumps.probe(login)
    except BackupError as error:
        return wrong(
            name, str(error)[:300], "pg_dump must be of the server's major version or newer, and get in as we do"
        )
    return fine(name, "pg_dump gets in")
