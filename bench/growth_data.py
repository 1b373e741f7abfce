"""The data of `growth.py`: millions of messages, made inside PostgreSQL, distributed as in real use.

There are 20,000 people. Most have about 20 conversations of two, and are in some of the 5,000 groups. A group has 3 to
200 members. One person, `heavy`, has talked with 1,500 people and is in 300 groups. A few conversations hold most of
the messages. There are also receipts (as rows of the log and in the ledger), notices, read cursors and the search
index.
"""

import json
import random
import time
from collections.abc import Iterator

import asyncpg
from message_store.search.grams import (
    BLOCK_BITS,
    folded,
    gram_of_block,
    gram_of_conversation,
    gram_of_person,
    gram_of_sender,
    grams_of_text,
)
from tlim_protocol.identity import conversation_of_users
from tlim_protocol.registry import MsgType

PEOPLE, DIRECT, GROUPS, TEXTS = 20_000, 200_000, 5_000, 20_000
HEAVY_DIRECT, HEAVY_GROUPS = 1_500, 300
HEAVY = "heavy"
CHAT_SHARE = 0.84  # share of the rows of the log; the rest are receipts and notices
YEAR_MS = 365 * 24 * 3600 * 1000
START_MS = 1_700_000_000_000
CHUNK = 1_000_000
SPAN = 10_000_000

COMMON, RARE = "今天", "密鑰轮换"  # the first is in a twentieth of the texts, the second in one text
CHINESE = ("会议 下午 项目 客户 合同 报告 明天 已经 发送 确认 收到 问题 安排 时间 上线 测试", "")
ENGLISH = ("please check the new version before we meet on monday thanks invoice order room train budget plan", " ")

# Indexes are made after the rows. This takes a fraction of the time.
_INDEXES = """
    SELECT pg_class.relname AS name, indrelid::regclass::text AS owner, conname,
           coalesce('ALTER TABLE ' || indrelid::regclass || ' ADD CONSTRAINT ' || conname || ' '
                    || pg_get_constraintdef(pg_constraint.oid),
                    replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON ')) AS definition
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid LEFT JOIN pg_constraint ON conindid = indexrelid
    WHERE indrelid = ANY ('{messages,message_ids,receipts,search_documents,read_cursors,members}'::regclass[])"""

_LOG = """
    INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body,
                          msg_time, location, stored_at)
    SELECT seq, conversation_id,
           CASE kind WHEN 'notice' THEN '' ELSE people[side] END,
           CASE WHEN is_direct THEN people[3 - side] END,
           CASE WHEN is_direct THEN 1 WHEN kind = 'receipt' THEN 3 ELSE 2 END,
           gen_random_uuid()::text, types[1 + is_direct::int], kind = 'chat', '2.0.0',
           CASE kind WHEN 'chat' THEN bench_texts.body ELSE receipt END::json, '0', 'web',
           {start} + seq * {year} / {rows}
    FROM (
        SELECT seq, kind, people, conversation_id, is_direct, (seq * 7919) % {texts} AS text,
               1 + floor(random() * cardinality(people))::int AS side
        FROM (
            SELECT seq, random() AS what,
                   CASE WHEN random() < 0.4 THEN {direct} + floor({groups} * power(random(), 2))
                        WHEN random() < 0.01 THEN floor({heavy} * power(random(), 1.5))
                        ELSE {heavy} + floor(({direct} - {heavy}) * power(random(), 2)) END::int AS n
            FROM generate_series({first}::bigint, {last}) AS seq) AS drawn
        JOIN bench_conversations USING (n)
        CROSS JOIN LATERAL (SELECT CASE WHEN what < {chat} THEN 'chat' WHEN what < 0.99 OR is_direct THEN 'receipt'
                                        ELSE 'notice' END AS kind) AS kinds) AS chosen
    JOIN bench_texts ON bench_texts.n = text
    JOIN bench_kinds USING (kind)
    ORDER BY seq"""

_SEARCH = """
    INSERT INTO search_documents (seq, grams)
    SELECT seq, bench_texts.grams || bench_conversations.grams || bench_blocks.grams || bench_people.gram
    FROM messages
    JOIN bench_texts ON bench_texts.n = (seq * 7919) % {texts}
    JOIN bench_conversations USING (conversation_id)
    JOIN bench_blocks ON bench_blocks.n = seq >> {bits}
    JOIN bench_people ON bench_people.user_id = sender
    WHERE is_chat AND seq BETWEEN {first} AND {last} ORDER BY seq"""

_AROUND = (
    "INSERT INTO message_ids SELECT msg_id, sender, seq FROM messages",
    """INSERT INTO addressees SELECT people[1], seq FROM messages JOIN bench_conversations USING (conversation_id)
       WHERE audience = 3""",
    """INSERT INTO receipts SELECT seq, recipient, stored_at + 100, CASE WHEN seq % 10 < 8 THEN stored_at + 5000 END
       FROM messages WHERE is_chat AND recipient IS NOT NULL AND seq % 10 < 9""",
    """INSERT INTO receipts SELECT seq, people[1], stored_at + 100, stored_at + 5000
       FROM messages JOIN bench_conversations USING (conversation_id)
       WHERE is_chat AND recipient IS NULL AND seq % 2 = 0 AND sender <> people[1]""",
    """INSERT INTO conversations (conversation_id, created_at, last_seq, session_name, session_type, session_version)
       SELECT conversation_id, 0, coalesce(newest, 0), CASE WHEN NOT is_direct THEN 'group ' || n END,
              CASE WHEN NOT is_direct THEN 0 END, CASE WHEN NOT is_direct THEN 1 END
       FROM bench_conversations LEFT JOIN
            (SELECT conversation_id, max(seq) AS newest FROM messages WHERE is_chat GROUP BY 1) AS last
            USING (conversation_id)""",
    """INSERT INTO members (conversation_id, user_id, joined_seq)
       SELECT DISTINCT conversation_id, unnest(people), CASE WHEN is_direct THEN 0 ELSE 1 END
       FROM bench_conversations""",
    """INSERT INTO read_cursors SELECT user_id, conversation_id, floor(last_seq * (1 - power(random(), 6) / 3))
       FROM members JOIN conversations USING (conversation_id) WHERE last_seq > 0""",
)


def _texts() -> Iterator[tuple[int, str, list[int]]]:
    draw = random.Random(1)  # noqa: S311 - the same data each time
    for number in range(TEXTS):
        words, blank = CHINESE if number % 2 else ENGLISH
        said = draw.choices(words.split(), k=draw.randint(3, 10))
        said += [COMMON] * (number % 20 == 0) + [RARE] * (number == TEXTS // 2) + [str(number)]
        text = blank.join(said)
        yield number, json.dumps([{"text": text}], ensure_ascii=False), sorted(grams_of_text(folded(text)))


def _people() -> list[str]:
    return [HEAVY, *(f"user{number}" for number in range(1, PEOPLE))]


def _conversations() -> Iterator[tuple[int, str, bool, list[str], list[int]]]:
    draw, people = random.Random(2), _people()  # noqa: S311 - the same data each time
    pairs = {(0, other): None for other in range(1, HEAVY_DIRECT + 1)}
    while len(pairs) < DIRECT:
        one, two = sorted(draw.sample(range(1, PEOPLE), 2))
        pairs[one, two] = None
    for number, pair in enumerate(pairs):
        both = [people[who] for who in pair]
        conversation_id = conversation_of_users(*both)
        grams = [gram_of_conversation(conversation_id), *map(gram_of_person, both)]
        yield number, conversation_id, True, both, grams
    with_heavy = set(draw.sample(range(GROUPS), HEAVY_GROUPS))
    for group in range(GROUPS):
        size = 3 + int(197 * draw.random() ** 4)
        members = draw.sample(people[1:], size) + [HEAVY] * (group in with_heavy)
        session_id = f"00000000-0000-4000-8000-{group:012}"
        yield DIRECT + group, session_id, False, members, [gram_of_conversation(session_id)]


async def load(connection: "asyncpg.Connection[asyncpg.Record]", messages: int) -> None:
    """Fill the empty tables of message-store with that many messages, their receipts, cursors and search index."""
    rows = int(messages / CHAT_SHARE)
    await connection.execute("SET synchronous_commit = off; SET work_mem = '512MB'; SET maintenance_work_mem = '1GB'")
    await connection.execute("SET max_parallel_maintenance_workers = 2; SELECT setseed(0.5)")
    await connection.fetchval("SELECT add_message_partitions($1, $2)", SPAN, rows)
    await _make_helpers(connection, rows)
    indexes = await connection.fetch(_INDEXES)
    for name, owner, constraint, _ in indexes:
        drop = f"ALTER TABLE {owner} DROP CONSTRAINT {constraint}" if constraint else f"DROP INDEX {name}"
        await connection.execute(drop)
    types = {"start": START_MS, "year": YEAR_MS, "rows": rows, "texts": TEXTS, "direct": DIRECT, "groups": GROUPS,
             "heavy": HEAVY_DIRECT, "chat": CHAT_SHARE, "bits": BLOCK_BITS[0]}  # fmt: skip
    for statement in (_LOG, _SEARCH):
        for first in range(1, rows + 1, CHUNK):
            bounds = {"first": first, "last": min(first + CHUNK - 1, rows)}
            await _timed(connection, statement.format(**types, **bounds))
        await connection.execute("ANALYZE messages")
    for statement in _AROUND:
        await _timed(connection, statement)
    for *_, definition in indexes:
        await _timed(connection, definition)
    await connection.execute("SELECT setval('message_seq', $1::bigint)", rows)
    await connection.execute("UPDATE publication SET published_seq = $1, indexed_seq = $1", rows)
    await connection.execute("DROP TABLE bench_texts, bench_conversations, bench_people, bench_blocks, bench_kinds")
    await _timed(connection, "VACUUM ANALYZE")


async def _make_helpers(connection: "asyncpg.Connection[asyncpg.Record]", rows: int) -> None:
    await connection.execute(
        """CREATE UNLOGGED TABLE bench_texts (n int PRIMARY KEY, body text, grams int[]);
           CREATE UNLOGGED TABLE bench_conversations (n int PRIMARY KEY, conversation_id text, is_direct bool,
                                                      people text[], grams int[]);
           CREATE UNLOGGED TABLE bench_people (user_id text, gram int);
           CREATE UNLOGGED TABLE bench_blocks (n int, grams int[]);
           CREATE UNLOGGED TABLE bench_kinds (kind text, types text[], receipt text)"""
    )
    blocks = [
        (block, [gram_of_block(bits, block << BLOCK_BITS[0]) for bits in BLOCK_BITS])
        for block in range((rows >> BLOCK_BITS[0]) + 1)
    ]
    receipt = json.dumps([{"msg_id": "fd6c568e-19ca-4e4e-9709-24dec0bb2b8d"}])
    kinds = [
        ("chat", [MsgType.GROUP_TEXT, MsgType.TEXT], ""),
        ("receipt", [MsgType.RECEIVED, MsgType.READ], receipt),
        ("notice", [MsgType.SESSION_CHANGED, MsgType.SESSION_CHANGED], json.dumps([{"actor": "user1"}])),
    ]
    tables = {
        "bench_texts": _texts(), "bench_conversations": _conversations(), "bench_blocks": blocks, "bench_kinds": kinds,
        "bench_people": [(person, gram_of_sender(person)) for person in _people()],
    }  # fmt: skip
    for table, records in tables.items():
        await connection.copy_records_to_table(table, records=records)
    await connection.execute("CREATE INDEX ON bench_conversations (conversation_id)")
    await connection.execute("ANALYZE bench_texts, bench_conversations, bench_people, bench_blocks, bench_kinds")


async def _timed(connection: "asyncpg.Connection[asyncpg.Record]", statement: str) -> None:
    started = time.perf_counter()
    await connection.execute(statement)
    print(f"  {time.perf_counter() - started:7.1f} s  {' '.join(statement.split())[:90]}", flush=True)
