"""The SQL that removes files from file-api's database, for whatever reason they go."""

from collections.abc import Sequence
from typing import NamedTuple

from tlim_runtime.transactions import Connection, begun

from tlim_admin.backup.objects import key_of, thumbnail_keys_of

_OLD = """
    SELECT file_id, size FROM files WHERE stored_at < to_timestamp($1::float8 / 1000) AND file_id > $2
    ORDER BY file_id LIMIT $3"""

# Messages may still carry a file that was sent: a note tells it from a lost one.
_REMOVE = """
    WITH gone AS (DELETE FROM files WHERE file_id = ANY($1::text[]) RETURNING file_id, blob_id, sent_at),
         noted AS (
            INSERT INTO removed_files SELECT file_id, now() FROM gone WHERE sent_at IS NOT NULL ON CONFLICT DO NOTHING)
    SELECT blob_id FROM gone"""

_NOTES = """
    SELECT file_id FROM removed_files WHERE removed_at < to_timestamp($1::float8 / 1000) AND file_id > $2
    ORDER BY file_id LIMIT $3"""

_FORGET = "DELETE FROM removed_files WHERE file_id = ANY($1::text[])"

_LOCK = "SELECT blob_id FROM blobs WHERE blob_id = ANY($1::text[]) ORDER BY blob_id FOR UPDATE"

# A statement of its own, after the lock: its snapshot has the files whose transactions the lock waited for. The row of
# an infected blob stays, so that its bytes are refused; it has no object.
_DROP_UNUSED = """
    DELETE FROM blobs WHERE blob_id = ANY($1::text[]) AND scan <> 'infected'
        AND NOT EXISTS (SELECT FROM files WHERE files.blob_id = blobs.blob_id)
    RETURNING blob_id, thumbnail_type IS NOT NULL AS has_thumbnails, size"""

_DISCARD = """
    INSERT INTO discarded (object_key, not_before) SELECT key, now() FROM unnest($1::text[]) AS gone (key) ORDER BY key
    ON CONFLICT DO NOTHING"""


class RemovedFiles(NamedTuple):
    """What was removed: files, and the bytes that no other file has."""

    files: int = 0
    bytes: int = 0


async def old_files(connection: Connection, cutoff: int, after: str, limit: int) -> dict[str, int]:
    """Return up to `limit` files uploaded before `cutoff` (epoch ms), with their sizes, behind the id `after`."""
    return {row["file_id"]: row["size"] for row in await connection.fetch(_OLD, cutoff, after, limit)}


async def remove(connection: Connection, file_ids: Sequence[str]) -> RemovedFiles:
    """Remove files, and the blobs that no other file has; file-api's sweeper removes their objects from S3."""
    async with begun(connection):
        await connection.execute("SET LOCAL lock_timeout = '30s'")
        blobs = [row["blob_id"] for row in await connection.fetch(_REMOVE, file_ids)]
        await connection.execute(_LOCK, blobs)
        unused = await connection.fetch(_DROP_UNUSED, blobs)
        keys = [key_of(row["blob_id"]) for row in unused]
        keys += [key for row in unused if row["has_thumbnails"] for key in thumbnail_keys_of(row["blob_id"])]
        await connection.execute(_DISCARD, keys)
    return RemovedFiles(len(blobs), sum(row["size"] for row in unused))


async def old_notes(connection: Connection, cutoff: int, after: str, limit: int) -> list[str]:
    """Return up to `limit` files removed before `cutoff` (epoch ms) that left a note, behind the id `after`."""
    return [row["file_id"] for row in await connection.fetch(_NOTES, cutoff, after, limit)]


async def forget_notes(connection: Connection, file_ids: Sequence[str]) -> None:
    """Forget that these files were removed."""
    await connection.execute(_FORGET, file_ids)
