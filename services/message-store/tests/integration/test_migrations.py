"""The migrations make exactly the tables that the models describe, and keep what is in them."""

from collections.abc import Callable

import asyncpg
import pytest
from tlim_protocol.identity import DELIVERY_SHARDS, delivery_shard
from tlim_runtime.migrations import check, upgrade

MINUTE_MS = 60_000
BEFORE_SHARDS = "20261128_mailboxes"


def test_a_migrated_database_is_what_the_models_describe(make_empty_database: Callable[[str], str]) -> None:
    url = make_empty_database("message_store")
    upgrade("message_store", url)
    check("message_store", url)


@pytest.mark.parametrize(("count", "start_seq"), [(0, 0), (10, 0), (25, 14)])
async def test_mailboxes_begin_behind_what_the_release_before_has_surely_delivered(
    make_empty_database: Callable[[str], str], count: int, start_seq: int
) -> None:
    """A message a minute: the last ten minutes may still be on their way to the XMPP server."""
    url = make_empty_database("message_store")
    upgrade("message_store", url, "20261128_untold_reads")
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute(
            """INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat,
                                     version, body, msg_time, location, stored_at)
               SELECT n, 'u:a:b', 'a', 'b', 1, n, 'MTT-000', true, '', '[]', '', '', n * $2::bigint
               FROM generate_series(1, $1) AS n""",
            count, MINUTE_MS,
        )  # fmt: skip
        upgrade("message_store", url)
        row = await connection.fetchrow("SELECT start_seq, settled_seq, settled_at FROM delivery")
        assert row is not None
        assert tuple(row) == (start_seq, 0, 0)
        assert await connection.fetchval("SELECT count(*) FROM messages") == count
        assert await connection.fetchval("SELECT count(*) FROM mailboxes") == 0
    finally:
        await connection.close()


async def test_with_shards_everybody_counts_as_gone_with_what_had_surely_arrived(
    make_empty_database: Callable[[str], str],
) -> None:
    url = make_empty_database("message_store")
    upgrade("message_store", url, BEFORE_SHARDS)
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute(
            """INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat,
                                     version, body, msg_time, location, stored_at)
               SELECT n, 'u:a:b', 'a', 'b', 1, n, 'MTT-000', true, '', '[]', '', '', n
               FROM generate_series(1, 9) AS n"""
        )
        await connection.execute("UPDATE delivery SET start_seq = 1, settled_seq = 7, settled_at = 500")
        await connection.execute(
            """INSERT INTO mailboxes (user_id, taken_seq, sessions, live_since)
               VALUES ('alice', 3, '{s1}', 400), ('bob', 4, '{s2,s3}', 600), ('carol', 8, '{s4}', 400),
                      ('dave', 5, '{s5}', NULL), ('erin', 2, '{}', NULL)"""
        )
        upgrade("message_store", url)
        rows = await connection.fetch(
            "SELECT user_id, taken_seq, sessions, live_since, shard FROM mailboxes ORDER BY 1"
        )
        taken = {"alice": 7, "bob": 4, "carol": 8, "dave": 5, "erin": 2}
        assert [tuple(row) for row in rows] == [
            (one, seq, [], None, delivery_shard(one)) for one, seq in sorted(taken.items())
        ]
        shards = await connection.fetch("SELECT shard, term, settled_seq, settled_at FROM delivery_shards ORDER BY 1")
        assert [tuple(row) for row in shards] == [(shard, 0, 7, 500) for shard in range(DELIVERY_SHARDS)]
        assert await connection.fetchval("SELECT start_seq FROM delivery") == 1
        await the_release_before_writes(connection)
    finally:
        await connection.close()


async def the_release_before_writes(connection: asyncpg.Connection) -> None:
    """The statements of a store that is not replaced yet still work."""
    await connection.execute("UPDATE delivery SET settled_seq = 8, settled_at = 600")
    await connection.execute(
        "INSERT INTO mailboxes (user_id, taken_seq) "
        "SELECT user_id, start_seq FROM unnest('{fay}'::text[]) u (user_id), delivery "
        "ON CONFLICT (user_id) DO UPDATE SET user_id = excluded.user_id WHERE false"
    )
    assert await connection.fetchval("SELECT shard FROM mailboxes WHERE user_id = 'fay'") is None
