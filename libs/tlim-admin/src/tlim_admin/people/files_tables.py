"""The SQL of file-api's database about one person."""

from typing import Any

from tlim_runtime.transactions import Connection

_FILES = """
    SELECT file_id, name, media_type, files.size, files.stored_at, sha256, blob_id, scan <> 'infected' AS has_bytes
    FROM files JOIN blobs USING (blob_id) WHERE owner_id = $1 ORDER BY file_id"""

_NEXT = "SELECT file_id FROM files WHERE owner_id = $1 AND file_id > $2 ORDER BY file_id LIMIT $3"

_COUNT = "SELECT count(*) FROM files WHERE owner_id = $1"

_END_UPLOADS = "UPDATE uploads SET expires_at = now() WHERE owner_id = $1 AND expires_at > now()"


async def files(connection: Connection, owner_id: str) -> list[dict[str, Any]]:
    """Return the files that the person uploaded; an infected one has no bytes any more."""
    rows = await connection.fetch(_FILES, owner_id)
    return [{**row, "stored_at": int(row["stored_at"].timestamp() * 1000)} for row in rows]


async def next_files(connection: Connection, owner_id: str, after: str, limit: int) -> list[str]:
    """Return up to `limit` files of the person, in the order of their ids, behind the id `after`."""
    return [row["file_id"] for row in await connection.fetch(_NEXT, owner_id, after, limit)]


async def count(connection: Connection, owner_id: str) -> int:
    """Return how many files the person has."""
    return int(await connection.fetchval(_COUNT, owner_id))


async def end_uploads(connection: Connection, owner_id: str) -> None:
    """Let the uploads that the person began expire: file-api removes what has arrived."""
    await connection.execute(_END_UPLOADS, owner_id)
