"""All SQL of backups: snapshots, what is in the tables, and which objects of S3 the rows need."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import asyncpg
from tlim_runtime.transactions import Connection, begun

from tlim_admin.backup.manifest import BackupError, Table, Tables

_TABLES = """
    SELECT relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname"""

# The text of a row depends on these.
_SETTINGS = """
    SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO';
    SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1"""

# A row as text, in the order of its columns, hashed to 64 bits. The sum does not depend on the order of the rows.
_CONTENT = """
    SELECT count(*), coalesce(sum(('x' || left(md5(t::text), 16))::bit(64)::bigint::numeric), 0)::text
    FROM {table} AS t"""

_BLOBS = "SELECT blob_id, size, sha256, thumbnail_type IS NOT NULL FROM blobs WHERE scan <> 'infected'"

_CARRIED = """
    SELECT DISTINCT file_id FROM message_files JOIN messages USING (seq)
    WHERE recalled_at IS NULL AND ($1::text[] IS NULL OR file_id = ANY($1)) ORDER BY file_id"""

_MISSING = """
    SELECT file_id FROM unnest($1::text[]) AS asked (file_id)
    WHERE NOT EXISTS (SELECT FROM files WHERE files.file_id = asked.file_id)
        AND NOT EXISTS (SELECT FROM removed_files WHERE removed_files.file_id = asked.file_id)"""

_ACCEPT = (
    "INSERT INTO removed_files SELECT file_id, now() FROM unnest($1::text[]) AS lost (file_id) ON CONFLICT DO NOTHING"
)


class NeededBlob(NamedTuple):
    """Bytes that must be in S3: `size` in bytes, `sha256` in hex."""

    blob_id: str
    size: int
    sha256: str
    has_thumbnails: bool


class OwnerLogin(NamedTuple):
    """A role in a database: the URL has no password."""

    service: str
    url: str
    password: str


@asynccontextmanager
async def connected(login: OwnerLogin) -> AsyncIterator[Connection]:
    """Lend a connection. Raises BackupError when PostgreSQL refuses it or a statement."""
    try:
        # without server_settings: PgBouncer refuses those that it does not know
        connection = await asyncpg.connect(login.url, password=login.password, timeout=10)
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        raise BackupError(f"PostgreSQL, {login.service}: {error or type(error).__name__}") from error
    try:
        yield connection
    except asyncpg.PostgresError as error:
        raise BackupError(f"PostgreSQL, {login.service}: {error}") from error
    finally:
        await connection.close(timeout=10)


@asynccontextmanager
async def snapshot(login: OwnerLogin) -> AsyncIterator[tuple[Connection, str]]:
    """Lend a connection that sees the database as it is now, and the snapshot's name for pg_dump."""
    async with connected(login) as connection, begun(connection, isolation="repeatable_read", readonly=True):
        yield connection, await connection.fetchval("SELECT pg_export_snapshot()")


async def content(connection: Connection) -> Tables:
    """Return what is in each table. The rows are read once."""
    tables = {}
    async with begun(connection):
        await connection.execute(_SETTINGS)
        for name in [row["relname"] for row in await connection.fetch(_TABLES)]:
            quoted = name.replace('"', '""')
            rows, digest = await connection.fetchrow(_CONTENT.format(table=f'"{quoted}"')) or (0, "0")
            tables[name] = Table(rows=rows, digest=digest)
    return tables


async def blobs(connection: Connection) -> dict[str, NeededBlob]:
    """Return the blobs whose bytes must be in S3, by their id."""
    return {row[0]: NeededBlob(*row) for row in await connection.fetch(_BLOBS)}


async def note_backup(connection: Connection, at: int, detail: str) -> None:
    """Enter in session-api's audit that a backup was made, at `at` (epoch ms); `detail` is a JSON object."""
    statement = """
        INSERT INTO audit (at, actor, action, detail, request_id) VALUES ($1, 'tlim-admin', 'backup.made', $2, '')"""
    await connection.execute(statement, at, detail)


async def carried_files(connection: Connection, among: Sequence[str] | None = None) -> list[str]:
    """Return the ids of the files that messages carry, recalled ones left out; with `among`, only those of these."""
    return [row["file_id"] for row in await connection.fetch(_CARRIED, among)]


async def missing_files(connection: Connection, ids: Sequence[str]) -> list[str]:
    """Return those of the ids that file-api does not have, and that nobody removed on purpose."""
    return [row["file_id"] for row in await connection.fetch(_MISSING, ids)]


async def accept_as_removed(connection: Connection, ids: Sequence[str]) -> None:
    """Enter files that are lost, or were removed without a note, as removed."""
    await connection.execute(_ACCEPT, ids)


async def versions_of_sessions(connection: Connection) -> dict[str, int]:
    """Return the newest version of each session, as session-api has it."""
    rows = await connection.fetch("SELECT session_id, version FROM sessions")
    return {row["session_id"]: row["version"] for row in rows}


async def applied_versions(connection: Connection) -> dict[str, int]:
    """Return the version of each session that message-store has applied."""
    statement = "SELECT conversation_id, session_version FROM conversations WHERE session_version IS NOT NULL"
    return {row["conversation_id"]: row["session_version"] for row in await connection.fetch(statement)}
