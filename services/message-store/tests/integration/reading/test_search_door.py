"""Search over HTTP: what is sent is found soon, in the shape of history, and every wrong question has its code."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from message_store.app import create_app
from message_store.metrics import StoreMetrics
from message_store.search.indexer import Indexer
from message_store.search.repository import SearchIndex
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType
from tlim_runtime.database import Database
from tlim_runtime.metrics import Metrics


@pytest_asyncio.fixture
async def index_all(database_url: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A function that makes all findable that the log holds."""
    database = Database(database_url, 1)
    indexer = Indexer(SearchIndex(database), StoreMetrics(Metrics()))

    async def index() -> None:
        while await indexer.advance():
            pass

    yield index
    await database.close()


async def test_what_is_sent_is_found_soon_by_both_and_by_nobody_else(
    world: Any, open_http: Any, accepted: Any, eventually: Any
) -> None:
    app = create_app(world.settings())
    async with world.running(app), open_http(app) as http:
        await world.send(accepted("m1", body=[{"text": "今天下午三点开会"}]), accepted("m2"))
        await world.settled(2)

        async def found() -> None:
            page = await http.read("bob", "search", q="下午")
            (hit,) = page["messages"]
            history = await http.read("bob", "conversations/alice/messages")
            assert hit == {**history["messages"][1], "conversation": "alice", "session_id": None}
            assert (page["next"], page["more"]) == (None, False)

        await eventually(found)
        (mine,) = (await http.read("alice", "search", q="下午", conversation="bob"))["messages"]
        assert mine["conversation"] == "bob"
        assert (await http.read("carol", "search", q="下午"))["messages"] == []
        assert "tlim_message_store_search_lag_messages 0.0" in (await http.client.get("/metrics")).text


async def test_it_is_seen_that_indexing_fails_each_time(
    world: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mistaken(_: SearchIndex) -> tuple[int, int]:
        raise LookupError("a mistake")

    async def seen() -> None:
        work = {"work": "search index"}
        assert (app.state.metrics.registry.get_sample_value("tlim_work_failing_seconds", work) or 0) > 0

    monkeypatch.setattr(SearchIndex, "position", mistaken)
    app = create_app(world.settings())
    async with world.running(app):
        await eventually(seen)


async def test_pages_follow_each_other(http: Any, log: Any, index_all: Any) -> None:
    seqs = [await log.direct("alice", "bob", body=[{"text": "hello"}]) for _ in range(5)]
    await index_all()
    first = await http.read("bob", "search", q="hello", limit=3)
    assert ([hit["seq"] for hit in first["messages"]], first["more"]) == (seqs[:1:-1], True)
    second = await http.read("bob", "search", q="hello", limit=3, before=first["next"])
    assert ([hit["seq"] for hit in second["messages"]], second["more"]) == (seqs[1::-1], False)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({}, ErrorCode.FIELD_INVALID),
        ({"q": ""}, ErrorCode.FIELD_INVALID),
        ({"q": " \u3000"}, ErrorCode.FIELD_INVALID),
        ({"q": "x" * 201}, ErrorCode.FIELD_INVALID),
        ({"q": "x", "limit": 0}, ErrorCode.FIELD_INVALID),
        ({"q": "x", "before": -1}, ErrorCode.FIELD_INVALID),
        ({"q": "x", "since": "yesterday"}, ErrorCode.FIELD_INVALID),
        ({"q": "x", "until": 2**63}, ErrorCode.FIELD_INVALID),
        ({"q": "x", "sender": "a@b"}, ErrorCode.FIELD_INVALID),
        ({"q": "x", "conversation": "\x00"}, ErrorCode.FIELD_INVALID),
        ({"q": "x", "msg_type": "MTT-9"}, ErrorCode.MSG_TYPE_INVALID),
        ({"q": "x", "msg_type": MsgType.READ.value}, ErrorCode.MSG_TYPE_INVALID),
    ],
)
async def test_a_wrong_question_is_refused_with_its_code(http: Any, query: dict[str, Any], code: ErrorCode) -> None:
    answer = await http.get("alice", "search", **query)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_strange_texts_are_just_not_found(http: Any) -> None:
    for text in ("%", "_", "'; DROP TABLE messages", "\x00", "\ufffd", "{}", "\\"):
        assert (await http.read("alice", "search", q=text))["messages"] == []


async def test_without_a_token_nothing_is_searched(http: Any) -> None:
    assert (await http.client.get("/v1/search", params={"q": "x"})).status_code == 401


async def test_a_recalled_message_is_found_no_more_and_leaves_no_trace(
    world: Any, open_http: Any, accepted: Any, eventually: Any
) -> None:
    app = create_app(world.settings())
    async with world.running(app), open_http(app) as http:
        await world.send(accepted("m1", body=[{"text": "oops"}]))

        async def is_found() -> None:
            assert len((await http.read("bob", "search", q="oops"))["messages"]) == 1

        await eventually(is_found)
        # at once after it is stored: the recall may come before, while or after the message is indexed
        await world.send(accepted("m2", body=[{"text": "oops again"}]))
        for number in (1, 2):
            await world.send(accepted(f"r{number}", msg_type=MsgType.RECALL, body=[{"msg_id": f"m{number}"}]))

        async def is_settled() -> None:
            (progress,) = await world.sql("SELECT indexed_seq, (SELECT max(seq) FROM messages) FROM publication")
            assert (progress[0], progress[1]) == (4, 4)

        await eventually(is_settled)
        assert (await http.read("bob", "search", q="oops"))["messages"] == []
        assert await world.sql("SELECT * FROM search_documents") == []
