"""The SQL of session-api's database about one person."""

import json
from typing import Any

from tlim_runtime.transactions import Connection, begun

ERASED_NAME = "erased user"
"""The name that others see from then on."""

_PROFILE = "SELECT user_id, name, active, created_at, modified_at FROM users WHERE user_id = $1"

_SESSIONS = """
    SELECT session_id, session_name, session_type, creator = user_id AS is_creator, joined_at, left_at, deleted_at
    FROM subscribers JOIN sessions USING (session_id) WHERE user_id = $1 ORDER BY joined_at, session_id"""

_AUDIT = """
    SELECT at, actor, action, target, detail::text AS detail FROM audit WHERE actor = $1 OR target = $1 ORDER BY id"""

_DEACTIVATE = "UPDATE users SET active = false, modified_at = $2 WHERE user_id = $1 AND active"

_RENAME = "UPDATE users SET name = $2 WHERE user_id = $1 AND name <> $2"

_FORGET = (
    "UPDATE audit SET detail = detail - 'name' WHERE target = $1 AND detail ? 'name'",  # of the import that gave it
    "DELETE FROM idempotency_keys WHERE user_id = $1",
)

_NOTE = """
    INSERT INTO audit (at, actor, action, target, detail, request_id) VALUES ($1, 'tlim-admin', $2, $3, $4, '')"""


async def profile(connection: Connection, user_id: str) -> dict[str, Any] | None:
    """Return what the directory has of the person; None if they are not in it. Times are epoch ms."""
    row = await connection.fetchrow(_PROFILE, user_id)
    return None if row is None else dict(row)


async def memberships(connection: Connection, user_id: str) -> list[dict[str, Any]]:
    """Return the sessions that the person is or was in, one for each time that they came."""
    return [dict(row) for row in await connection.fetch(_SESSIONS, user_id)]


async def audit(connection: Connection, user_id: str) -> list[dict[str, Any]]:
    """Return what the person did as an administrator, and what administrators did to them."""
    rows = await connection.fetch(_AUDIT, user_id)
    return [{**row, "detail": json.loads(row["detail"])} for row in rows]


async def deactivate(connection: Connection, user_id: str, now: int) -> None:
    """Make the person unknown, as DELETE /v1/users does: services refuse their tokens within seconds."""
    async with begun(connection):
        if await connection.execute(_DEACTIVATE, user_id, now) == "UPDATE 1":
            await note(connection, "user.deactivated", user_id, now, {})


async def forget(connection: Connection, user_id: str, now: int, counts: dict[str, int]) -> None:
    """Take the name away, and enter in the audit what was erased: both or neither."""
    async with begun(connection):
        await connection.execute(_RENAME, user_id, ERASED_NAME)
        for statement in _FORGET:
            await connection.execute(statement, user_id)
        await note(connection, "user.erased", user_id, now, counts)


async def note(connection: Connection, action: str, user_id: str, now: int, detail: dict[str, int]) -> None:
    """Enter in the audit what the operator's command has done to the person."""
    await connection.execute(_NOTE, now, action, user_id, json.dumps(detail))
