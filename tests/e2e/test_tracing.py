"""Traces: one follows a message from stanza to stanza, and goes on from the request that caused it."""

import secrets
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import httpx
from tlim_client.compose import file_message
from tlim_client.inbox import Delivered, Refused
from tlim_devstack.stack import Stack
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import Rpc

from tests.e2e.clients.collector import Collector, Span
from tests.e2e.clients.people import People, next_delivered

STEPS = ["accept", "store", "publish", "deliver"]


def is_chain(spans: Mapping[str, Span], *names: str) -> bool:
    return all(spans[after].parent_id == spans[before].span_id for before, after in pairwise(names))


def ends(question: tuple[Span, Span]) -> list[tuple[str, str]]:
    """Return which service asked and which answered, with the kinds of their spans."""
    return [(span.service, span.kind) for span in question]


async def traced(stack: Stack, token: str, path: str, body: object = None) -> tuple[str, str]:
    """Post, or get, something in a trace that began elsewhere; return the ids of that trace and of its span."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    headers = {"Authorization": f"Bearer {token}", "traceparent": f"00-{trace}-{span}-01"}
    async with httpx.AsyncClient(base_url=stack.addresses.gateway, headers=headers, timeout=60) as client:
        answer = await (client.get(path) if body is None else client.post(path, json=body))
        answer.raise_for_status()
    return trace, span


async def test_one_trace_follows_a_message_and_the_spans_of_batches_link_to_it(
    people: People, collector: Collector
) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    sent = alice.text_to(bob, "follow me")

    await phone.send_until_stored(sent)
    await next_delivered(receiver)
    steps = await collector.steps(STEPS, msg_id=sent.msg_id)

    assert {span.trace_id for span in steps.values()} == {steps["accept"].trace_id}
    assert steps["accept"].parent_id == ""
    assert is_chain(steps, *STEPS)
    assert [steps[name].service for name in STEPS] == ["xmpp-bridge", "message-store", "message-store", "xmpp-bridge"]
    store, deliver = await collector.linked_to(steps["accept"]), await collector.linked_to(steps["publish"])
    assert (store.name, deliver.name) == ("store batch", "deliver batch")
    assert (store.trace_id, store.span_id) in steps["store"].links & steps["publish"].links
    assert store.trace_id != steps["store"].trace_id


async def test_a_refused_message_has_a_trace_with_its_code(people: People, collector: Collector) -> None:
    alice, bob = await people("alice", "bob")
    phone = await alice.device()
    sent = alice.text_to(bob, "").model_copy(update={"body": []})

    phone.send(sent)
    refused = await phone.expect(Refused)
    step = (await collector.steps(["accept"], msg_id=sent.msg_id))["accept"]

    assert step.failure == refused.code


async def test_a_message_of_another_system_goes_on_in_the_trace_of_its_request(
    stack: Stack, people: People, admin_token: str, collector: Collector
) -> None:
    (bob,) = await people("bob")
    receiver = await bob.device()
    body = {"from": "system", "to": bob.user_id, "msg_type": MsgType.TEXT, "body": [{"text": "your report"}]}

    trace, span = await traced(stack, admin_token, "/v1/messages", body)
    await next_delivered(receiver)
    steps = await collector.steps(["POST /v1/messages", *STEPS[1:]], trace_id=trace)

    assert steps["POST /v1/messages"].parent_id == span
    assert is_chain(steps, "POST /v1/messages", *STEPS[1:])


async def test_a_change_of_a_session_is_told_in_the_trace_of_its_request(
    stack: Stack, people: People, collector: Collector
) -> None:
    alice, bob = await people("alice", "bob")
    receiver = await bob.device()
    body = {"session_type": 1, "subscribers": [alice.user_id, bob.user_id]}

    trace, _ = await traced(stack, await (await alice.device()).fetch_token(), "/v1/sessions", body)
    notice = await receiver.expect(Delivered)
    steps = await collector.steps(["POST /v1/sessions", *STEPS[1:]], trace_id=trace)

    assert notice.envelope.msg_type is MsgType.SESSION_ADDED
    assert is_chain(steps, "POST /v1/sessions", *STEPS[1:])


async def test_what_other_services_are_asked_for_a_message_and_for_a_request_is_in_its_trace(
    stack: Stack, people: People, collector: Collector, tmp_path: Path
) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    plan = tmp_path / "plan.txt"
    plan.write_text("the plan")
    file_id = await (await alice.http()).upload(plan)
    sent = file_message(alice.user_id, bob.user_id, MsgType.FILE, file_id)

    await phone.send_until_stored(sent)
    await next_delivered(receiver)
    steps = await collector.steps(STEPS, msg_id=sent.msg_id)
    people_asked = await collector.question(Rpc.USER_MEET, steps["store"])
    files_asked = await collector.question(Rpc.FILE_CHECK, steps["store"])
    assert ends(people_asked) == [("message-store", "client"), ("session-api", "server")]
    assert ends(files_asked) == [("message-store", "client"), ("file-api", "server")]
    assert people_asked[1].values == {"rpc.system.name": "nats", "rpc.method": Rpc.USER_MEET}

    trace, _ = await traced(stack, await receiver.fetch_token(), f"/v1/files/{file_id}")
    request = (await collector.steps(["GET /v1/files/{file_id}"], trace_id=trace))["GET /v1/files/{file_id}"]
    readers_asked = await collector.question(Rpc.MESSAGE_GRANTS, request)
    assert ends(readers_asked) == [("file-api", "client"), ("message-store", "server")]
    assert {span.trace_id for span in readers_asked} == {trace}
