"""History over HTTP: pages, members only, every refusal; and that a long history costs no more than a short one."""

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import httpx
import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from message_store.app import create_app
from tlim_protocol.errors import ErrorCode
from tlim_runtime.auth import TokenVerifier

KEY = Ed25519PrivateKey.generate()


def token(user: str) -> dict[str, str]:
    now = int(time.time())
    claims = {"sub": user, "iss": "tlim", "aud": "tlim", "iat": now, "exp": now + 60}
    return {"Authorization": f"Bearer {jwt.encode(claims, KEY, 'EdDSA', headers={'kid': 'test'})}"}


async def keys() -> dict[str, Any]:
    public = jwt.get_algorithm_by_name("EdDSA").to_jwk(KEY.public_key(), as_dict=True)
    return {"keys": [{**public, "kid": "test"}]}


@pytest_asyncio.fixture
async def client(world: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(world.settings())
    app.state.tokens = TokenVerifier(keys, "tlim", "tlim")
    async with world.running(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://store") as client:
            yield client


async def read(client: httpx.AsyncClient, me: str, peer: str, **query: int) -> dict[str, Any]:
    answer = await client.get(f"/v1/conversations/{peer}/messages", params=query, headers=token(me))
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


async def test_both_members_read_the_same_messages_newest_first(
    client: httpx.AsyncClient, world: Any, accepted: Any
) -> None:
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


async def test_pages_back_and_forth_show_each_message_once(
    client: httpx.AsyncClient, world: Any, accepted: Any
) -> None:
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
    client: httpx.AsyncClient, world: Any, accepted: Any
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
    client: httpx.AsyncClient, path: str, status: int, code: ErrorCode
) -> None:
    answer = await client.get(f"/v1/conversations/{path}", headers=token("alice"))
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nonsense"}])
async def test_without_a_valid_token_nothing_is_read(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert (await client.get("/v1/conversations/bob/messages", headers=headers)).status_code == 401


PAGE = "SELECT * FROM messages WHERE is_chat AND conversation_id = 'u:alice:user7'"
NEWEST = f"{PAGE} ORDER BY seq DESC LIMIT 51"
BEFORE = f"{PAGE} AND seq < 40000 ORDER BY seq DESC LIMIT 51"
AFTER = f"{PAGE} AND seq > 10000 ORDER BY seq ASC LIMIT 51"


@pytest.mark.parametrize("page", [NEWEST, BEFORE, AFTER])
async def test_a_page_of_a_long_history_is_one_range_of_an_index(
    world: Any, owner_url: Callable[[str, str], str], page: str
) -> None:
    await world.sql("""
        INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version,
                              body, msg_time, location, stored_at)
        SELECT n, 'u:alice:user' || n % 500, 'alice', 'user' || n % 500, 1, n::text, '', true, '', '[]', '', '', 0
        FROM generate_series(1, 50000) AS n""")
    owner = await asyncpg.connect(owner_url("message_store", world.database_url).replace("+asyncpg", ""))
    await owner.execute("ANALYZE messages")  # as autovacuum does in time
    await owner.close()
    plan = await world.sql("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) " + page)
    text = "\n".join(line for (line,) in plan)
    assert "_conversation_id_seq_" in text  # how PostgreSQL names ix_messages_history in a partition
    assert "Filter" not in text
    assert "Sort" not in text
    assert "rows=51" in text


async def test_the_counters_are_shown(client: httpx.AsyncClient, world: Any, accepted: Any) -> None:
    world.directory.strangers.add("nobody")
    await world.send(accepted("m1"), accepted("m2", to="nobody"))
    await world.settled(1)
    metrics = (await client.get("/metrics")).text
    assert "tlim_message_store_stored_total 1.0" in metrics
    assert f'tlim_message_store_rejected_total{{code="{ErrorCode.USER_UNKNOWN.value}"}} 1.0' in metrics
    assert "tlim_message_store_publication_lag_messages 0.0" in metrics
    assert "tlim_message_store_leading 1.0" in metrics
    assert (await client.get("/readyz")).json()["ready"]
