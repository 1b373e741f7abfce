"""History over HTTP: pages, members only, every refusal."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from message_store.app import create_app
from tlim_protocol.envelope import write_envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import subject_in

GROUP = "6f1c5e0a-9d6b-4a53-8a3e-0d6c1b7f2a10"


@pytest_asyncio.fixture
async def client(world: Any, open_http: Any) -> AsyncIterator[Any]:
    """A running instance of the whole application, and its HTTP door."""
    app = create_app(world.settings())
    async with world.running(app), open_http(app) as opened:
        yield opened


async def read(http: Any, me: str, conversation: str, **query: int) -> dict[str, Any]:
    page: dict[str, Any] = await http.read(me, f"conversations/{conversation}/messages", **query)
    return page


async def seqs(http: Any, me: str, conversation: str, **query: int) -> list[int]:
    return [message["seq"] for message in (await read(http, me, conversation, **query))["messages"]]


async def test_both_members_read_the_same_messages_newest_first(client: Any, world: Any, accepted: Any) -> None:
    await world.send(accepted("m1"), accepted("m2", "bob", "alice", msg_time=None, body=[{"text": "\x00 你"}]))
    await world.settled(2)
    page = await read(client, "alice", "bob")
    newest, oldest = await world.rows(), page["messages"][1]
    assert page == await read(client, "Bob", "ALICE")
    assert (page["more"], page["next"]) == (False, oldest["seq"])
    assert page["messages"][0] == {
        "seq": newest[1]["seq"], "stored_at": str(newest[1]["stored_at"]), "recalled": False,
        "compress": "0", "encode": "1", "encrypt": "0", "version": "2.0.0", "from": "bob", "to": "alice",
        "msg_id": "m2", "msg_type": accepted("m2").envelope.msg_type, "msg_time": "1700000000000",
        "body": [{"text": "\x00 你"}],
    }  # fmt: skip


async def test_pages_back_and_forth_show_each_message_once(client: Any, world: Any, accepted: Any) -> None:
    await world.send(*(accepted(f"m{i}") for i in range(7)), accepted("other", to="carol"))
    await world.settled(8)
    back: list[str] = []
    page = await read(client, "alice", "bob", limit=3)
    back += [one["msg_id"] for one in page["messages"]]
    while page["more"]:
        page = await read(client, "alice", "bob", limit=3, before=page["next"])
        back += [one["msg_id"] for one in page["messages"]]
    assert back == [f"m{i}" for i in range(6, -1, -1)]
    forth: list[str] = []
    page = {"more": True, "next": 0}
    while page["more"]:
        page = await read(client, "alice", "bob", limit=3, after=page["next"])
        forth += [one["msg_id"] for one in page["messages"]]
    assert forth == back[::-1]
    await world.send(accepted("late"))
    await world.settled(9)
    assert [one["msg_id"] for one in (await read(client, "alice", "bob", after=page["next"]))["messages"]] == ["late"]


async def test_a_stranger_and_a_conversation_that_nobody_began_look_the_same(
    client: Any, world: Any, accepted: Any
) -> None:
    await world.send(accepted("m1"))
    await world.settled(1)
    nothing: dict[str, Any] = {"messages": [], "next": None, "more": False}
    assert await read(client, "carol", "bob") == nothing
    assert await read(client, "carol", "nobody-at-all") == nothing


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("u:alice:bob/messages", 404, ErrorCode.SESSION_UNKNOWN),
        ("bob@im.example/messages", 404, ErrorCode.SESSION_UNKNOWN),
        ("bob/messages?limit=0", 422, ErrorCode.FIELD_INVALID),
        ("bob/messages?limit=201", 422, ErrorCode.FIELD_INVALID),
        ("bob/messages?before=x", 422, ErrorCode.FIELD_INVALID),
        ("bob/messages?before=-1", 422, ErrorCode.FIELD_INVALID),
        ("bob/messages?after=9223372036854775808", 422, ErrorCode.FIELD_INVALID),
        ("bob/messages?before=1&after=1", 422, ErrorCode.FIELD_INVALID),
    ],
)
async def test_a_wrong_question_is_a_problem_document_with_its_code(
    client: Any, path: str, status: int, code: ErrorCode
) -> None:
    answer = await client.get("alice", f"conversations/{path}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nonsense"}])
async def test_without_a_valid_token_nothing_is_read(client: Any, headers: dict[str, str]) -> None:
    assert (await client.client.get("/v1/conversations/bob/messages", headers=headers)).status_code == 401


async def test_of_a_group_only_the_time_of_membership_is_read(http: Any, log: Any) -> None:
    await log.group(GROUP, "bob", "carol")
    before = await log.say("bob", GROUP)
    await log.change(GROUP, actor="bob", added=("alice",))
    inside = [await log.say("bob", GROUP), await log.say("alice", GROUP)]
    await log.change(GROUP, actor="bob", removed=("alice",))
    away = await log.say("bob", GROUP)
    await log.change(GROUP, actor="bob", added=("alice",))
    again = await log.say("bob", GROUP)
    assert await seqs(http, "alice", GROUP) == [again, *reversed(inside)]
    assert await seqs(http, "alice", GROUP, after=0, limit=2) == inside
    assert await seqs(http, "alice", GROUP, before=again, limit=1) == inside[1:]
    assert await seqs(http, "carol", GROUP) == [again, away, *reversed(inside), before]


async def test_receipts_and_notices_are_not_history_and_a_recalled_message_is_a_tombstone(http: Any, log: Any) -> None:
    await log.group(GROUP, "alice", "bob")
    seq = await log.say("bob", GROUP)
    await log.say("alice", GROUP, MsgType.READ)
    await log.say("bob", GROUP, MsgType.RECALL)
    await log.recall(seq)
    (tombstone,) = (await read(http, "alice", GROUP))["messages"]
    assert (tombstone["seq"], tombstone["recalled"], tombstone["body"]) == (seq, True, [])


async def test_who_left_and_who_was_in_a_deleted_session_still_read_what_they_saw(http: Any, log: Any) -> None:
    await log.group(GROUP, "alice", "bob")
    seq = await log.say("bob", GROUP)
    await log.change(GROUP, actor="bob", removed=("bob",))
    await log.change(GROUP, MsgType.SESSION_DELETED, actor="alice", removed=("alice",))
    assert await seqs(http, "alice", GROUP) == await seqs(http, "bob", GROUP) == [seq]


async def test_a_session_that_one_was_never_in_looks_like_none(http: Any, log: Any) -> None:
    await log.group(GROUP, "alice", "bob")
    for session_id in (GROUP, GROUP.replace("6", "7")):
        answer = await http.get("carol", f"conversations/{session_id}/messages")
        assert (answer.status_code, answer.json()["code"]) == (404, ErrorCode.SESSION_UNKNOWN)


async def test_large_messages_make_short_pages(http: Any, log: Any) -> None:
    expected = [await log.direct("bob", "alice", body=[{"text": "x" * 600_000}]) for _ in range(3)]
    page = await read(http, "alice", "bob")
    assert [message["seq"] for message in page["messages"]] == expected[:0:-1]
    assert (page["next"], page["more"]) == (expected[1], True)
    assert await seqs(http, "alice", "bob", before=page["next"]) == expected[:1]


async def test_the_counters_are_shown(client: Any, world: Any, accepted: Any) -> None:
    world.directory.strangers.add("nobody")
    await world.send(accepted("m1"), accepted("m2", to="nobody"))
    await world.settled(1)
    metrics = (await client.client.get("/metrics")).text
    assert f'tlim_message_store_stored_total{{msg_type="{MsgType.TEXT.value}"}} 1.0' in metrics
    assert f'tlim_message_store_rejected_total{{code="{ErrorCode.USER_UNKNOWN.value}"}} 1.0' in metrics
    assert "tlim_message_store_publication_lag_messages 0.0" in metrics
    assert "tlim_message_store_groups 8.0" in metrics
    assert "tlim_message_store_upkeep 1.0" in metrics
    for stage in ("store", "publish"):
        assert f'tlim_message_stage_duration_seconds_count{{stage="{stage}"}}' in metrics
    assert 'tlim_consumer_lag_messages{consumer="message-store-0"}' in metrics
    assert (await client.client.get("/readyz")).json()["ready"]


async def test_numbers_come_out_as_they_went_in(client: Any, world: Any, accepted: Any, eventually: Any) -> None:
    numbers = '{"price":100.10,"many":1e2,"long":12345678901234567890,"exact":0.10000000000000000555}'
    message = accepted("m1")
    payload = message.to_bytes().replace(b'{"text":"text of m1"}', f'{{"text":"x","numbers":{numbers}}}'.encode())
    await world.send_raw(subject_in(MsgType.TEXT, message.envelope.conversation_id), payload)
    await world.settled(1)
    (delivery,) = await world.deliveries()
    assert numbers in write_envelope(delivery.envelope)
    for path in ("conversations/bob/messages", "sync", "conversations", "messages/m1"):
        assert numbers in (await client.get("alice", path)).text

    async def is_found() -> None:  # once it is indexed
        assert numbers in (await client.get("alice", "search", q="x")).text

    await eventually(is_found)
