"""What a page or a question costs depends on what is asked and by whom, not on how much lies in the store."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from operator import le
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from message_store.archive_repository import _FIND_SHARED_FILES
from sqlalchemy import event
from tlim_protocol.identity import delivery_shard
from tlim_protocol.mailboxes import MailboxNote

GROUPS = 20

FRAME = ("SELECT 1", "BEGIN", "COMMIT")
"""What the pool and the transaction say around the statements of a question."""

# 40,000 messages to u0: from 500 people, in 20 groups that he is in, and in as many that he is not in. As many of his
# own, all to one of them.
FILL = """
    INSERT INTO conversations (conversation_id, created_at, last_seq)
    SELECT 'u:u0:u' || n, 0, 40000 - n FROM generate_series(1, 500) AS n
    UNION ALL SELECT 'g' || n, 0, 40000 FROM generate_series(1, 40) AS n;
    INSERT INTO members (conversation_id, user_id, joined_seq)
    SELECT 'u:u0:u' || n, user_id, 0 FROM generate_series(1, 500) AS n, unnest(ARRAY['u0', 'u' || n]) AS user_id
    UNION ALL SELECT 'g' || n, 'u' || k, 1 FROM generate_series(1, 40) AS n, generate_series(0, 50) AS k
    WHERE k > 0 OR n <= 20;
    INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body,
                          msg_time, location, stored_at)
    SELECT n, CASE WHEN n % 2 = 0 THEN 'u:u0:u' || 1 + n % 500 ELSE 'g' || 1 + n % 40 END,
           'u' || 1 + n % 500, CASE WHEN n % 2 = 0 THEN 'u0' END, 2 - (n + 1) % 2, n, 'MTT-000', true, '', '[]', '', '',
           0
    FROM generate_series(1, 40000) AS n;
    INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body,
                          msg_time, location, stored_at)
    SELECT 40000 + n, 'u:u0:u1', 'u0', 'u1', 1, 'own' || n, 'MTT-000', true, '', '[]', '', '', 0
    FROM generate_series(1, 40000) AS n;
    INSERT INTO message_ids (msg_id, sender, seq) SELECT msg_id, sender, seq FROM messages"""

FILL_FEW = """
    INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body,
                          msg_time, location, stored_at)
    SELECT n, 'u:alice:bob', 'alice', 'bob', 1, n, 'MTT-000', true, '', '[]', '', '', 0
    FROM generate_series(1, 1000) AS n"""

# What was said in the groups since, in the next partition.
FILL_LATER = """
    SELECT add_message_partitions(10000000, 10000001);
    INSERT INTO messages (seq, conversation_id, sender, audience, msg_id, msg_type, is_chat, version, body, msg_time,
                          location, stored_at)
    SELECT 10000000 + n, 'g' || 1 + n % 40, 'u1', 2, 'later' || n, 'MTT-000', true, '', '[]', '', '', 0
    FROM generate_series(1, 4000) AS n"""

# A quiet group and a quiet conversation at the beginning of a log that another group has filled since: u0 is in the
# first two only.
FILL_BY_ONE = """
    INSERT INTO conversations (conversation_id, created_at, last_seq)
    VALUES ('g1', 0, 20), ('u:u0:u7', 0, 40), ('g2', 0, 40000);
    INSERT INTO members (conversation_id, user_id, joined_seq)
    VALUES ('g1', 'u0', 1), ('g1', 'u7', 1), ('u:u0:u7', 'u0', 0), ('u:u0:u7', 'u7', 0), ('g2', 'u7', 1);
    INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body,
                          msg_time, location, stored_at)
    SELECT n, CASE WHEN n <= 20 THEN 'g1' WHEN n <= 40 THEN 'u:u0:u7' ELSE 'g2' END, 'u7',
           CASE WHEN n > 20 AND n <= 40 THEN 'u0' END, CASE WHEN n > 20 AND n <= 40 THEN 1 ELSE 2 END, n, 'MTT-000',
           true, '', '[]', '', '', 0
    FROM generate_series(1, 40000) AS n;
    INSERT INTO message_ids (msg_id, sender, seq) SELECT msg_id, sender, seq FROM messages"""

# A group of a thousand, all of whom have read what was said in it, among many conversations of two.
FILL_LARGE_GROUP = """
    INSERT INTO conversations (conversation_id, created_at, last_seq)
    SELECT 'g1', 0, 1 UNION ALL SELECT 'u:v' || n || ':w', 0, n FROM generate_series(2, 4000) AS n;
    INSERT INTO members (conversation_id, user_id, joined_seq)
    SELECT 'g1', 'u' || n, 1 FROM generate_series(0, 999) AS n
    UNION ALL SELECT 'u:v' || n || ':w', unnest(ARRAY['v' || n, 'w']), 0 FROM generate_series(2, 4000) AS n;
    INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body,
                          msg_time, location, stored_at)
    SELECT n, CASE WHEN n = 1 THEN 'g1' ELSE 'u:v' || n || ':w' END, CASE WHEN n = 1 THEN 'u1' ELSE 'v' || n END,
           CASE WHEN n > 1 THEN 'w' END, CASE WHEN n = 1 THEN 2 ELSE 1 END, n, 'MTT-000', true, '', '[]', '', '', 0
    FROM generate_series(1, 4000) AS n;
    INSERT INTO message_ids (msg_id, sender, seq) SELECT msg_id, sender, seq FROM messages;
    INSERT INTO receipts (seq, user_id, delivered_at, read_at)
    SELECT 1, 'u' || n, 1, 1 FROM generate_series(2, 999) AS n
    UNION ALL SELECT n, 'w', 1, 1 FROM generate_series(2, 4000) AS n"""

# A store that is still small, and u0 in many groups.
FILL_SEARCH = """
    INSERT INTO members (conversation_id, user_id, joined_seq)
    SELECT 'g' || n, 'u0', 1 FROM generate_series(1, 300) AS n;
    INSERT INTO search_documents (seq, grams)
    SELECT n, ARRAY(SELECT hashint4(n * 61 + k) FROM generate_series(1, 60) AS k) FROM generate_series(1, 5000) AS n"""

CASES: dict[str, tuple[dict[str, Any], int]] = {
    "sync": ({"after": 0}, 101 * (GROUPS + 3)),
    "sync ": ({"after": 39_000}, 101 * (GROUPS + 3)),
    "conversations": ({}, 50 * (1 + 1 + 1001)),
    "conversations/u7/messages": ({"before": 30_000}, 2 * 51),
    "conversations/g7/messages": ({}, 2 * 51),
    "conversations/g8/messages": ({"after": 10_000}, 2 * 51),
    "messages/30000": ({}, 4),
}
"""Path → query, and how many rows of the log, and of the ledger, may be looked at."""

CASES_BY_ONE: dict[str, tuple[dict[str, Any], int]] = {
    "sync": ({"after": 0}, 4 * 40),
    "sync ": ({"after": 30}, 4 * 10),
    "sync  ": ({"after": 20_000}, 0),
    "conversations": ({}, 2 * (2 + 40)),
    "conversations/u7/messages": ({}, 2 * 20),
    "conversations/g1/messages": ({}, 2 * 20),
    "conversations/g1/messages ": ({"after": 0}, 2 * 20),
    "messages/7": ({}, 4),
}

CASES_LARGE_GROUP: dict[str, tuple[dict[str, Any], int]] = {
    "messages/1": ({}, 4 + 1000 + 1000),
    "messages/1 ": ({"state": "unread"}, 4 + 1000 + 1000),
}

CASES_SEARCH: dict[str, tuple[dict[str, Any], int]] = {"search": ({"q": "|"}, 0), "search ": ({"q": "今天"}, 0)}


@pytest.fixture
def fill() -> str:
    """What is in the store: a test is parametrized with it."""
    return ""


@pytest.fixture
def database_url(make_database: Callable[..., str], fill: str) -> str:
    return make_database("message_store", fill)


@pytest_asyncio.fixture
async def owner(database_url: str, owner_url: Callable[[str, str], str]) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(owner_url("message_store", database_url).replace("+asyncpg", ""))
    yield connection
    await connection.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def literal(value: Any) -> str:
    if isinstance(value, list):
        return f"ARRAY[{', '.join(map(literal, value))}]"
    return "NULL" if value is None else f"'{value}'" if isinstance(value, str) else str(value)


async def plans_of(owner: Any, statement: str, parameters: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Run a statement six times and return the plans: from then on PostgreSQL may keep one made for any values."""
    if statement.startswith("SELECT set_config"):
        await owner.fetch(statement, *parameters)
        return []
    values = f"({', '.join(map(literal, parameters))})" if parameters else ""
    await owner.execute(f"PREPARE asked AS {statement}")
    explain = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE asked {values}"
    plans = [json.loads(await owner.fetchval(explain))[0]["Plan"] for _ in range(6)]
    await owner.execute("DEALLOCATE asked")
    return plans


def rows_looked_at(plan: dict[str, Any]) -> float:
    """How many rows of the log and of the ledger a statement looks at, and that it never goes through all there are."""
    looked_at = 0.0
    for node in nodes(plan):
        relation = node.get("Relation Name", "")
        assert node["Node Type"] != "Seq Scan" or not relation.startswith(("message", "search")), json.dumps(node)
        if relation.startswith(("message", "receipts")):
            removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            looked_at += node["Actual Loops"] * (node["Actual Rows"] + removed)
    return looked_at


CASES_MISSED: list[tuple[dict[str, Any], list[int]]] = [
    ({"after": 0}, [1, 101 * (GROUPS + 3)]),
    ({"after": 39_000, "limit": 500}, [1, 501 * (GROUPS + 3)]),
    ({"after": 39_990}, [1, 2 * 10]),
    ({"after": 0, "receipts": False}, [1, 1_001 * (GROUPS + 3)]),
    ({"after": 80_000}, [1, 0]),
]
"""What is asked, and how many rows of the log each statement may look at: the mailbox, and a page."""


# A conversation of two with 3,000 messages, and a group of 5,000, at the beginning and at the end of a log that others
# have filled.
FILL_AMONG_OTHERS = """
    INSERT INTO conversations (conversation_id, created_at, last_seq) VALUES ('u:u0:u7', 0, 1), ('g1', 0, 1);
    INSERT INTO members (conversation_id, user_id, joined_seq)
    VALUES ('g1', 'u0', 1), ('g1', 'u7', 1), ('u:u0:u7', 'u0', 0), ('u:u0:u7', 'u7', 0), ('g2', 'u7', 1);
    INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body,
                          msg_time, location, stored_at)
    SELECT n, CASE WHEN n <= 3000 THEN 'u:u0:u7' WHEN n > 195000 THEN 'g1' ELSE 'g' || n % 50 + 2 END, 'u7',
           CASE WHEN n <= 3000 THEN 'u0' END, CASE WHEN n <= 3000 THEN 1 ELSE 2 END, n, 'MTT-000',
           true, '', '[]', '', '', 0
    FROM generate_series(1, 200000) AS n"""


@pytest.mark.parametrize("vacuum", ["", "VACUUM"])  # what was written last has not been visited by autovacuum
@pytest.mark.parametrize(
    ("fill", "cases"),
    [(FILL, CASES), (FILL_BY_ONE, CASES_BY_ONE), (FILL_LARGE_GROUP, CASES_LARGE_GROUP), (FILL_SEARCH, CASES_SEARCH)],
)
async def test_a_page_looks_at_no_more_rows_than_it_needs(
    http: Any, owner: Any, cases: dict[str, tuple[dict[str, Any], int]], vacuum: str
) -> None:
    await owner.execute(f"{vacuum} ANALYZE")
    for path, (query, at_most) in cases.items():
        asked = await plans_of_reading(http, owner, path.strip(), query)
        assert sum(max(map(rows_looked_at, plans)) for plans in asked) <= at_most, path


# 60 groups that u0 is in, with 1,000 rows each.
FILL_MANY_GROUPS = """
    INSERT INTO members (conversation_id, user_id, joined_seq)
    SELECT 'g' || n, 'u0', 1 FROM generate_series(0, 59) AS n;
    INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body,
                          msg_time, location, stored_at)
    SELECT n, 'g' || n % 60, 'u7', NULL, 2, n, 'MTC-001', false, '', '[]', '', '', 0
    FROM generate_series(1, 60000) AS n"""


@pytest.mark.parametrize("fill", [FILL_MANY_GROUPS], ids=["filled"])
async def test_a_page_without_receipts_does_not_read_every_group_as_far_as_one_alone(mailroom: Any, owner: Any) -> None:
    await owner.execute("ANALYZE")
    question = mailroom.page("u0", after=10, receipts=False)
    _, page = await plans_of_asking(mailroom.database, owner, question)
    assert max(map(rows_looked_at, page)) <= 6_000


@pytest.mark.parametrize("fill", [FILL], ids=["filled"])
@pytest.mark.parametrize("vacuum", ["", "VACUUM"])
async def test_a_page_of_what_was_missed_looks_at_no_more_rows_than_it_needs(
    mailroom: Any, owner: Any, vacuum: str
) -> None:
    await owner.execute(f"{vacuum} ANALYZE")
    for question, at_most in CASES_MISSED:
        asked = await plans_of_asking(mailroom.database, owner, mailroom.page("u0", **question))
        looked_at = [max(map(rows_looked_at, plans)) for plans in asked]
        assert all(map(le, looked_at, at_most)), (question, looked_at)
        assert len(looked_at) == len(at_most)


@pytest.mark.parametrize("fill", [FILL_AMONG_OTHERS], ids=["filled"])
@pytest.mark.parametrize("upkeep", ["SELECT", "VACUUM", "ANALYZE", "VACUUM ANALYZE"])
async def test_what_a_cut_looks_at_is_what_was_addressed_to_the_person(mailroom: Any, owner: Any, upkeep: str) -> None:
    await owner.execute(upkeep)
    asked = await plans_of_asking(mailroom.database, owner, mailroom.page("u0"))
    standing, page, *blocks = [max(map(rows_looked_at, plans)) for plans in asked]
    assert standing <= 1
    assert page <= 101 * (1 + 3)
    assert sum(blocks) <= 2 * 8_000


@pytest.mark.parametrize("fill", [FILL], ids=["filled"])
async def test_who_has_missed_nothing_costs_one_look_at_the_end_of_the_log(mailroom: Any, owner: Any) -> None:
    await owner.execute("ANALYZE")
    await mailroom.note(MailboxNote(user_id="u0", taken=80_000))
    ((*plans,),) = await plans_of_asking(mailroom.database, owner, mailroom.page("u0"))
    assert max(map(rows_looked_at, plans)) <= 1


async def test_who_is_present_is_found_without_a_look_at_who_is_not(mailroom: Any, owner: Any) -> None:
    await owner.execute("INSERT INTO mailboxes (user_id, taken_seq) SELECT 'u' || n, 0 FROM generate_series(1, 9999) n")
    present = [f"u{n}" for n in range(1, 1_000) if delivery_shard(f"u{n}") == 3][:20]
    await mailroom.note(*[MailboxNote(user_id=one, sessions=["s"]) for one in present])
    await owner.execute("ANALYZE")
    asked = await plans_of_asking(mailroom.database, owner, mailroom.live(3, limit=10))
    scans = [
        node for plans in asked for plan in plans for node in nodes(plan) if node.get("Relation Name") == "mailboxes"
    ]
    assert {(scan["Index Name"], scan["Actual Rows"]) for scan in scans} == {("ix_mailboxes_live", 11)}


@pytest.mark.parametrize("fill", [FILL], ids=["filled"])
async def test_the_log_behind_a_full_page_of_sync_is_not_looked_at_for_each_group(http: Any, owner: Any) -> None:
    await owner.execute(FILL_LATER)
    await owner.execute("ANALYZE")
    plans, _of_the_mailbox = await plans_of_reading(http, owner, "sync", {"after": 0})
    for plan in plans:
        loops = [node["Actual Loops"] for node in nodes(plan) if node.get("Relation Name") == "messages_p10000001"]
        assert loops
        assert max(loops) <= 1


async def plans_of_reading(http: Any, owner: Any, path: str, query: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Let u0 read, and return the plans of each statement."""
    return await plans_of_asking(http.database, owner, http.read("u0", path, **query))


async def plans_of_asking(database: Any, owner: Any, question: Awaitable[Any]) -> list[list[dict[str, Any]]]:
    """Await a question, and return the plans of each of its statements."""
    asked: list[tuple[str, tuple[Any, ...]]] = []

    def note(query: Any) -> None:
        if not query.query.startswith(FRAME):
            asked.append((query.query, query.args))

    def watch(connection: Any, *_: Any) -> None:
        connection.driver_connection.add_query_logger(note)

    def leave(connection: Any, *_: Any) -> None:
        connection.driver_connection.remove_query_logger(note)

    engine = database.engine.sync_engine
    for name, listener in (("checkout", watch), ("checkin", leave)):
        event.listen(engine, name, listener)
    await question
    for name, listener in (("checkout", watch), ("checkin", leave)):
        event.remove(engine, name, listener)
    async with owner.transaction():
        found = [await plans_of(owner, *one) for one in asked]
    assert any(found)
    return [plans for plans in found if plans]


async def test_a_file_that_nobody_shared_costs_no_look_at_the_log(owner: Any) -> None:
    await owner.execute(FILL_FEW)  # without ANALYZE: a new store has no statistics
    unknown = [f"none{number}" for number in range(100)]
    for plan in await plans_of(owner, _FIND_SHARED_FILES, (unknown, ["alice"] * len(unknown))):
        scans = [node for node in nodes(plan) if node.get("Relation Name", "").startswith("messages")]
        assert scans
        assert [scan["Actual Loops"] for scan in scans] == [0] * len(scans)
