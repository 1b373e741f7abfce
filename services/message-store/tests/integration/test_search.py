"""Search on real PostgreSQL: what is found, by whom, page by page; equal to looking at every message in turn."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from message_store.metrics import StoreMetrics
from message_store.reading.slice_repository import MAX_BYTES
from message_store.search import indexer, service
from message_store.search.grams import BLOCK_BITS, folded, text_of
from message_store.search.indexer import Indexer, documents_of
from message_store.search.repository import SearchIndex, SearchReader, Unindexed
from message_store.search.service import Hits, Question, checked, search
from tlim_admin.people.messages_tables import empty_messages
from tlim_protocol.identity import conversation_of_users
from tlim_protocol.registry import MsgType
from tlim_runtime import database as runtime_database
from tlim_runtime.database import Database
from tlim_runtime.metrics import Metrics

GROUP, OTHER_GROUP = "group-1", "group-2"


@dataclass
class Library:
    """A database of messages, its index, and who asks."""

    database: Database
    sql: Any  # a connection of the tables' owner
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.index = SearchIndex(self.database)
        self.indexer = Indexer(self.index, StoreMetrics(self.metrics))

    async def clear(self) -> None:
        await self.sql.execute("DELETE FROM messages; DELETE FROM members; DELETE FROM search_documents")
        await self.sql.execute("DELETE FROM recalls; UPDATE publication SET indexed_seq = 0")

    async def join(self, group: str, *users: str, joined: int = 0, left: int | None = None) -> None:
        for user in users:
            await self.sql.execute("INSERT INTO members VALUES ($1, $2, $3, $4)", group, user, joined, left)

    async def say(
        self, text: str, sender: str = "alice", to: str = "bob", *, seq: int, stored_at: int = 0,
        msg_type: MsgType = MsgType.TEXT, body: Sequence[Mapping[str, object]] | None = None,
    ) -> None:  # fmt: skip
        """Put a message into the log; `to` is a user, or a group that has members."""
        is_group = to in (GROUP, OTHER_GROUP)
        conversation = to if is_group else conversation_of_users(sender, to)
        if not is_group:
            await self.sql.execute(
                "INSERT INTO members SELECT DISTINCT $1, unnest($2::text[]), 0 ON CONFLICT DO NOTHING",
                conversation, [sender, to],
            )  # fmt: skip
        await self.sql.execute(
            """INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat,
                                     version, body, msg_time, location, stored_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, true, '', $8, '', '', $9)""",
            seq, conversation, sender, None if is_group else to, 2 if is_group else 1, f"m{seq}", msg_type.value,
            json.dumps(body or [{"text": text}], ensure_ascii=False), stored_at,
        )  # fmt: skip
        await self.sql.execute("SELECT setval('message_seq', (SELECT max(seq) FROM messages))")

    async def recall(self, seq: int) -> None:
        await self.sql.execute("UPDATE messages SET recalled_at = 1, body = '[]' WHERE seq = $1", seq)
        await self.sql.execute("DELETE FROM search_documents WHERE seq = $1", seq)
        await self.sql.execute(
            "INSERT INTO recalls (seq, conversation_id, sender, msg_id, msg_type, stored_at, recalled_at)"
            " SELECT seq, conversation_id, sender, msg_id, msg_type, stored_at, 1 FROM messages WHERE seq = $1", seq
        )  # fmt: skip

    async def catch_up(self) -> None:
        while await self.indexer.advance():
            pass

    async def page(self, me: str, text: str, limit: int = 200, *, elapsed: float = 0, **only: Any) -> Hits:
        async with self.database.hot_transaction() as connection:
            return await search(
                SearchReader(connection), me, checked(Question(text, **only)), limit=limit, elapsed=lambda: elapsed
            )

    async def find(self, me: str, text: str, **only: Any) -> list[int]:
        """Return the seqs of all that is found."""
        return [message.seq for message in (await self.page(me, text, **only)).messages]


@pytest_asyncio.fixture
async def library(make_database: Callable[[str], str], owner_url: Callable[[str, str], str]) -> AsyncIterator[Library]:
    url = make_database("message_store")
    connection = await asyncpg.connect(owner_url("message_store", url).replace("+asyncpg", ""))
    database = Database(url)
    yield Library(database, connection)
    await connection.close()
    await database.close()


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("今天下午三点开会", "下午"),
        ("今天下午三点开会", "今"),
        ("Please Bring the FIGURES", "bring THE fig"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("Résumé der Straße", "RE\u0301SUMÉ DER STRASSE"),
        ("well done 👍🏽!", "👍"),
        ("well done 👍🏽!", "👍🏽!"),
        ("100% of it_is \\here 'quoted' \"twice\"", "100%"),
        ("100% of it_is \\here 'quoted' \"twice\"", "\\here 'quoted' \"t"),
        ("x", "x"),
        ("a  b\nc", "a b c"),
        ("nul \x00 too", "\x00 t"),
    ],
)
async def test_a_message_is_found_by_any_part_of_its_text(library: Library, text: str, query: str) -> None:
    await library.say(text, seq=1)
    await library.say("something else entirely", seq=2)
    await library.catch_up()
    assert await library.find("bob", query) == [1]


@pytest.mark.parametrize("query", ["下三", "开会。", "今明", "%", "_", "resume", "👎"])
async def test_what_is_not_in_it_does_not_find_it(library: Library, query: str) -> None:
    await library.say("今天下午三点开会 Résumé 👍", seq=1)
    await library.catch_up()
    assert await library.find("bob", query) == []


async def test_a_message_may_be_indexed_for_longer_than_other_statements_take(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_database, "SILENCE_S", 0.1)
    url = library.database.engine.url.render_as_string(hide_password=False)
    hurried = Database(url, statement_timeout_ms=1_000)
    async with library.sql.transaction():
        await library.sql.execute("INSERT INTO search_documents (seq, grams) VALUES (1, '{}')")
        adding = asyncio.create_task(SearchIndex(hurried).add([(1, {1})]))  # waits for that row
        ended, _ = await asyncio.wait([adding], timeout=2)
    assert not ended
    await adding
    await hurried.close()


async def test_only_what_one_may_see_is_found(library: Library) -> None:
    await library.join(GROUP, "alice", "bob")
    await library.say("secret", "alice", "carol", seq=1)
    await library.say("secret", "alice", "bob", seq=2)
    await library.say("secret", "alice", GROUP, seq=3)
    await library.join(GROUP, "carol", joined=4, left=6)
    await library.say("secret", "alice", GROUP, seq=5)
    await library.say("secret", "alice", GROUP, seq=7)
    await library.join(GROUP, "carol", joined=8)
    await library.say("secret", "alice", GROUP, seq=9)
    await library.catch_up()
    assert await library.find("alice", "secret") == [9, 7, 5, 3, 2, 1]
    assert await library.find("bob", "secret") == [9, 7, 5, 3, 2]
    assert await library.find("carol", "secret") == [9, 5, 1]
    assert await library.find("carol", "secret", conversation=GROUP) == [9, 5]
    assert await library.find("mallory", "secret") == []
    assert await library.find("mallory", "secret", conversation=GROUP) == []
    assert await library.find("mallory", "secret", conversation="alice") == []


async def test_a_search_is_narrowed_by_conversation_sender_type_and_time(library: Library) -> None:
    await library.join(GROUP, "alice", "bob", "carol")
    await library.say("hi", "alice", "bob", seq=1, stored_at=1_000_000)
    await library.say("hi", "bob", "alice", seq=2, stored_at=2_000_000)
    await library.say("hi", "carol", GROUP, seq=3, stored_at=3_000_000, msg_type=MsgType.GROUP_TEXT)
    await library.say("hi", "alice", GROUP, seq=4, stored_at=4_000_000, msg_type=MsgType.GROUP_TEXT)
    await library.say("hi", "alice", "carol", seq=5, stored_at=4_000_000)
    await library.catch_up()
    assert await library.find("alice", "hi", conversation="BOB") == [2, 1]
    assert await library.find("alice", "hi", conversation=GROUP) == [4, 3]
    assert await library.find("alice", "hi", sender="Alice") == [5, 4, 1]
    assert await library.find("alice", "hi", sender="alice", conversation=GROUP) == [4]
    assert await library.find("alice", "hi", msg_type=MsgType.GROUP_TEXT.value) == [4, 3]
    assert await library.find("alice", "hi", since=2_000_000, until=3_000_000) == [3, 2]
    assert await library.find("alice", "hi", until=999_999) == []
    assert await library.find("alice", "hi", since=4_000_001) == []
    assert await library.find("alice", "hi", before=3) == [2, 1]


async def test_to_dos_are_found_by_their_words_and_files_by_their_name(library: Library) -> None:
    await library.join(GROUP, "alice", "bob")
    todo = [{"session_id": GROUP, "title": "Pay", "content": {"lines": ["the rent"]}}]
    await library.say("", to=GROUP, seq=1, msg_type=MsgType.GROUP_TODO, body=todo)
    await library.say("", seq=2, msg_type=MsgType.FILE, body=[{"file_id": "rent-id", "name": "Rent 2026.pdf"}])
    await library.catch_up()
    assert await library.find("bob", "rent") == [2, 1]
    assert await library.find("bob", "pay") == [1]
    assert await library.find("bob", "rent-id") == []
    assert await library.find("bob", GROUP) == []


async def test_a_recalled_message_is_not_found_whenever_it_was_recalled(library: Library) -> None:
    for seq in (1, 2, 3):
        await library.say("oops", seq=seq)
    await library.recall(1)  # before it was indexed
    await library.catch_up()
    await library.recall(2)  # after
    assert await library.find("alice", "oops") == [3]
    assert [row[0] for row in await library.sql.fetch("SELECT seq FROM search_documents")] == [3]


async def test_a_recall_while_the_message_is_being_indexed_leaves_no_trace(library: Library) -> None:
    await library.say("oops", seq=1)
    rows, _ = await library.index.after(0, 10, 1_000)
    await library.recall(1)  # read already, not yet written
    await library.index.add([(row.seq, {1}) for row in rows])
    await library.index.finish(0, 1)
    assert await library.sql.fetch("SELECT seq FROM search_documents") == []


async def test_an_erasure_while_the_message_is_being_indexed_leaves_no_trace(library: Library) -> None:
    await library.say("oops", seq=1)
    rows, _ = await library.index.after(0, 10, 1_000)
    assert await empty_messages(library.sql, "alice", now=1, after=0, limit=10) == [1]
    await library.index.add([(row.seq, {1}) for row in rows])
    await library.index.finish(0, 1)
    assert await library.sql.fetch("SELECT seq FROM search_documents") == []


async def test_indexing_again_changes_nothing(library: Library) -> None:
    await library.say("hello", seq=1)
    await library.catch_up()
    await library.sql.execute("UPDATE publication SET indexed_seq = 0")
    await library.catch_up()
    assert await library.find("bob", "hello") == [1]
    assert await library.index.position() == (1, 1)


async def test_long_messages_are_indexed_a_few_at_a_time(library: Library) -> None:
    texts = ["".join(chr(0x4E00 + (start + step * step) % 20_000) for step in range(60_000)) for start in range(5)]
    for seq, text in enumerate(texts, 1):
        await library.say(text, seq=seq)
    positions = []
    while await library.indexer.advance():
        positions.append(await library.index.position())
    assert positions == [(2, 5), (4, 5)]
    assert await library.index.position() == (5, 5)
    assert await library.find("bob", texts[0][-3:]) == [1]


async def test_indexing_keeps_nothing_else_waiting(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, others_went_on = threading.Event(), threading.Event()

    def slow(rows: Sequence[Unindexed]) -> list[tuple[int, set[int]]]:
        begun.set()
        assert others_went_on.wait(timeout=60)
        return documents_of(rows)

    monkeypatch.setattr(indexer, "documents_of", slow)
    await library.say("hello", seq=1)
    async with asyncio.TaskGroup() as group:
        group.create_task(library.catch_up())
        await asyncio.to_thread(begun.wait)
        others_went_on.set()
    assert await library.find("bob", "hello") == [1]


async def test_an_indexer_that_is_behind_does_not_turn_the_mark_back(library: Library) -> None:
    for seq in (1, 2):
        await library.say("hello", seq=seq)
    await library.catch_up()
    await library.index.finish(0, 1)
    assert (await library.index.position())[0] == 2


async def test_pages_show_each_message_once_while_new_ones_arrive(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "CANDIDATES", 3)
    monkeypatch.setattr(service, "CANDIDATES_ANYWHERE", 3)
    for seq in range(1, 12):
        await library.say("hello" if seq % 3 else "other", seq=seq * 5_000)  # in many blocks
    await library.catch_up()
    seen, before = [], None
    while True:
        page = await library.page("bob", "hello", 2, before=before)
        seen += [message.seq for message in page.messages]
        if page.next is None:
            break
        before = page.next
        await library.say("hello", seq=100_000 + before)
        await library.catch_up()
    assert seen == [seq * 5_000 for seq in range(11, 0, -1) if seq % 3]


async def test_a_search_that_is_too_much_work_says_where_to_go_on(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_STATEMENTS", 1)
    await library.say("needle", seq=1)
    await library.say("hay", seq=100_000)
    await library.catch_up()
    page, pages = await library.page("bob", "needle"), 1
    while page.next is not None:
        assert not page.messages
        page, pages = await library.page("bob", "needle", before=page.next), pages + 1
    assert ([message.seq for message in page.messages], pages > 1) == ([1], True)


@pytest.mark.parametrize("many_places", [30, 0])
async def test_a_page_whose_time_is_up_ends_soon_and_the_next_one_goes_on(
    library: Library, monkeypatch: pytest.MonkeyPatch, many_places: int
) -> None:
    """Messages of a megabyte that only seem to match: 200 of them, a page's candidates, took half a minute."""
    monkeypatch.setattr(service, "MANY_PLACES", many_places)
    await library.say("abca", seq=1)
    for seq in (2, 3, 4):
        await library.say("", seq=seq, body=[{"text": "bcab", "more": "x" * MAX_BYTES}])
    await library.catch_up()
    pages = [await library.page("bob", "abca", elapsed=2 * service.MAX_SECONDS)]
    while (before := pages[-1].next) is not None:
        pages.append(await library.page("bob", "abca", elapsed=2 * service.MAX_SECONDS, before=before))
        assert (pages[-1].next or 0) < before
    assert [[message.seq for message in page.messages] for page in pages][-2:] == [[], [1]]


async def test_what_is_found_by_a_few_characters_makes_short_pages_when_it_is_large(library: Library) -> None:
    for seq in (1, 2, 3):
        await library.say("", seq=seq, body=[{"text": "hello", "more": "x" * 600_000}])
    await library.catch_up()
    page = await library.page("bob", "hello")
    assert [message.seq for message in page.messages] == [3, 2]
    assert await library.find("bob", "hello", before=page.next) == [1]


WORDS = st.lists(st.sampled_from(["今天", "天下", "a", "B", "é", " ", "👍", "%"]), min_size=1, max_size=4).map("".join)
PEOPLE = st.sampled_from(["alice", "bob", "carol"])


CORPUS = st.lists(
    st.tuples(WORDS, PEOPLE, st.sampled_from(["alice", "bob", "carol", GROUP]), st.booleans()), max_size=8
)


@pytest.mark.parametrize("bounds", [(30, 2_000), (0, 2_000), (0, 0)], ids=["few places", "rare", "common"])
@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(corpus=CORPUS, query=WORDS.filter(str.strip), me=PEOPLE, limit=st.integers(1, 4))
async def test_the_index_finds_what_looking_at_every_message_finds(
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
    *,
    bounds: tuple[int, int],
    corpus: list[tuple[str, str, str, bool]],
    query: str,
    me: str,
    limit: int,
) -> None:
    for name, bound in zip(("MANY_PLACES", "FEW"), bounds, strict=True):
        monkeypatch.setattr(service, name, bound)
    await library.clear()
    await library.join(GROUP, "alice", joined=0)
    await library.join(GROUP, "bob", joined=20_000, left=60_000)
    expected = []
    for number, (text, sender, to, is_recalled) in enumerate(corpus, 1):
        seq = number * (2 ** BLOCK_BITS[0] + 1)
        await library.say(text, sender, to, seq=seq)
        if is_recalled:
            await library.recall(seq)
        sees = {"alice": to == GROUP, "bob": to == GROUP and 20_000 <= seq <= 60_000}.get(me, False)
        if not is_recalled and (sees or (to != GROUP and me in (sender, to))):
            expected += [seq] * (folded(query) in text_of(MsgType.TEXT, [{"text": text}]))
    await library.catch_up()
    found, page = [], await library.page(me, query, limit)
    while True:
        found += [message.seq for message in page.messages]
        if page.next is None:
            break
        page = await library.page(me, query, limit, before=page.next)
    assert found == expected[::-1]
