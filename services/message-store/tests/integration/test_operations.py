"""Operators see all instances, the way of a message, and dead letters, which they can send their way again."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tlim_protocol.dead_letters import CAUSE_HEADER, REASON_HEADER, SUBJECT_HEADER, DeadCause
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import AuditAction, AuditNote
from tlim_protocol.subjects import Rpc, subject_dead, subject_in
from tlim_runtime.auth import TokenVerifier
from tlim_runtime.trail import Passed

KEY = Ed25519PrivateKey.generate()


def token(scope: str) -> dict[str, str]:
    now = int(time.time())
    claims = {"sub": "root", "iss": "tlim", "aud": "tlim", "iat": now, "exp": now + 600, "scope": scope}
    return {"Authorization": f"Bearer {jwt.encode(claims, KEY, 'EdDSA', headers={'kid': 'test'})}"}


async def keys() -> dict[str, Any]:
    public = jwt.get_algorithm_by_name("EdDSA").to_jwk(KEY.public_key(), as_dict=True)
    return {"keys": [{**public, "kid": "test"}]}


@pytest_asyncio.fixture
async def operator(world: Any) -> AsyncIterator[httpx.AsyncClient]:
    """An operator at the door of a message-store; the audit log is the world's."""
    world.notes = []

    async def note(data: bytes) -> bytes:
        world.notes.append(AuditNote.from_bytes(data))
        return b""

    await world.session_api.respond(Rpc.AUDIT_NOTE, note, "session-api")
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(world.running())
        app.state.tokens = TokenVerifier(keys, "tlim", "tlim")
        app.state.tokens.refuse(())
        transport = httpx.ASGITransport(app)
        yield await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://store.test", headers=token("admin"))
        )


async def test_all_who_look_at_once_share_one_question(world: Any, operator: httpx.AsyncClient) -> None:
    questions: list[bytes] = []
    listener = await world.connect("file-api")

    async def answer(data: bytes) -> bytes:
        questions.append(data)
        return b""

    await listener.respond(Rpc.OPERATIONS_REPORT, answer, "")
    looks = await asyncio.gather(*(operator.get("/v1/operations") for _ in range(20)))
    assert {look.status_code for look in looks} == {200}
    assert len({look.json()["at"] for look in looks}) == len(questions) == 1
    [report] = looks[0].json()["reports"]
    assert report["service"] == "message-store"
    assert {sample["name"] for sample in report["samples"]} >= {"tlim_message_store_groups", "tlim_unread_drift"}
    assert not any(sample["name"].startswith("tlim_http_") for sample in report["samples"])


async def test_the_way_of_a_message_is_told_step_by_step(
    world: Any, operator: httpx.AsyncClient, accepted: Any
) -> None:
    await world.send(accepted("m/1"), accepted("m2"))
    await world.settled(2)
    way = (await operator.get("/v1/operations/messages/m/1")).json()
    # in any order: the time of the second step is the broker's, and the clocks may differ by more than the steps do
    steps = [Passed.READ, Passed.FETCHED, Passed.COMMITTED, Passed.PUBLISHED]
    assert sorted(step["step"] for step in way["steps"]) == sorted(steps)
    [row] = way["rows"]
    assert (row["sender"], row["received"], row["read"]) == ("alice", 0, 0)
    assert "text of" not in str(way)


@pytest.mark.parametrize("msg_id", ["unknown", "a%00b"])
async def test_an_id_that_no_message_has_has_no_way(operator: httpx.AsyncClient, msg_id: str) -> None:
    answer = await operator.get(f"/v1/operations/messages/{msg_id}")
    assert answer.status_code == 200
    assert (answer.json()["rows"], answer.json()["steps"]) == ([], [])


async def test_a_dead_letter_goes_its_way_again_once_and_is_in_the_audit_log(
    world: Any, operator: httpx.AsyncClient, accepted: Any
) -> None:
    message = accepted("m1")
    subject = subject_in(message.envelope.msg_type, message.envelope.conversation_id)
    headers = {REASON_HEADER: "a <b>test</b>", CAUSE_HEADER: DeadCause.UNSTORABLE, SUBJECT_HEADER: subject}
    await world.tests.publish(subject_dead(subject), message.to_bytes(), "dead:1", headers)

    page = (await operator.get("/v1/operations/dead-letters")).json()
    [letter] = page["items"]
    assert (letter["msg_id"], letter["cause"], letter["reason"]) == ("m1", "unstorable", "a <b>test</b>")
    assert (letter["subject"], page["next_before"]) == (subject, None)

    again = f"/v1/operations/dead-letters/{letter['seq']}/redrive"
    assert (await operator.post(again)).status_code == 200
    await world.settled(1)
    assert (await operator.get("/v1/operations/dead-letters")).json()["items"] == []
    gone = await operator.post(again)
    assert (gone.status_code, gone.json()["code"]) == (404, ErrorCode.MSG_ID_UNKNOWN)
    assert {(note.actor, note.action, note.target) for note in world.notes} == {
        ("root", AuditAction.DEAD_LETTER_REDRIVEN, str(letter["seq"]))
    }


async def test_without_the_audit_log_nothing_is_sent_again(
    world: Any, operator: httpx.AsyncClient, accepted: Any
) -> None:
    subject = subject_in(accepted("m1").envelope.msg_type, "u:alice:bob")
    await world.tests.publish(subject_dead(subject), b"{}", "dead:1", {SUBJECT_HEADER: subject})
    [letter] = (await operator.get("/v1/operations/dead-letters")).json()["items"]
    await world.stop_directory()
    answer = await operator.post(f"/v1/operations/dead-letters/{letter['seq']}/redrive")
    assert (answer.status_code, answer.json()["code"]) == (503, ErrorCode.UNAVAILABLE)
    assert len((await operator.get("/v1/operations/dead-letters")).json()["items"]) == 1


async def test_a_letter_without_a_way_is_not_said_to_have_gone_it(
    world: Any, operator: httpx.AsyncClient, accepted: Any
) -> None:
    subject = subject_in(accepted("m1").envelope.msg_type, "u:alice:bob")
    await world.tests.publish(subject_dead(subject), b"{}", "dead:1", {SUBJECT_HEADER: "elsewhere"})
    [letter] = (await operator.get("/v1/operations/dead-letters")).json()["items"]
    answer = await operator.post(f"/v1/operations/dead-letters/{letter['seq']}/redrive")
    assert (answer.status_code, answer.json()["code"]) == (422, ErrorCode.FIELD_INVALID)
    assert world.notes == []
    assert len((await operator.get("/v1/operations/dead-letters")).json()["items"]) == 1


@pytest.mark.parametrize("path", ["", "/messages/m1", "/dead-letters"])
async def test_only_administrators_see_it(operator: httpx.AsyncClient, path: str) -> None:
    refused = await operator.get(f"/v1/operations{path}", headers=token(""))
    assert (refused.status_code, refused.json()["code"]) == (403, ErrorCode.NOT_ALLOWED)
    del operator.headers["Authorization"]
    assert (await operator.get(f"/v1/operations{path}")).status_code == 401


async def test_the_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(operator: httpx.AsyncClient) -> None:
    for path, kind in (("", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        answer = await operator.get(f"/operations{path}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in answer.text
        assert "innerHTML" not in answer.text
    assert (await operator.get("/operations/../app.py")).status_code == 404
