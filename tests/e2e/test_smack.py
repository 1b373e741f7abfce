"""Smack, the client library that the specification names, talks with everybody else."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tlim_client.compose import about, group_message, receipt
from tlim_client.inbox import Carbon, Delivered, Refused, Stored
from tlim_devstack.stack import Stack
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

from tests.e2e.clients import smack as smack_project
from tests.e2e.clients.people import People, Person, next_delivered, server_of
from tests.e2e.clients.raw import raw_envelope
from tests.e2e.clients.smack import SmackClient
from tests.e2e.clients.terminal import Terminal, next_json

Smack = Callable[[Person], Awaitable[SmackClient]]


@pytest.fixture(scope="session")
def smack_target() -> Path:
    return smack_project.build()


@pytest.fixture
async def smack(smack_target: Path, stack: Stack) -> AsyncIterator[Smack]:
    """Logs people in with Smack."""
    server = server_of(stack)
    async with AsyncExitStack() as opened:

        async def log_in(person: Person) -> SmackClient:
            client = await SmackClient.start(smack_target, server, person.user_id, person.password)
            opened.push_async_callback(client.close)
            return client

        yield log_in


@pytest.mark.proves(MsgType.TEXT)
async def test_a_message_goes_from_smack_to_tlim_and_back(people: People, smack: Smack) -> None:
    alice, bob = await people("alice", "bob")
    phone, terminal = await smack(alice), await bob.device()
    question, answer = alice.text_to(bob, "你好 <&> 👋"), bob.text_to(alice, "hello")

    stanza_id = await phone.send(question)
    stored = await phone.expect(Stored)
    delivered = await next_delivered(terminal)
    answered = await terminal.send_until_stored(answer)
    heard = await phone.expect(Delivered)

    assert (stored.msg_id, delivered.envelope, delivered.seq) == (question.msg_id, question, stored.seq)
    assert stanza_id
    assert (heard.envelope, heard.seq, heard.from_jid) == (answer, answered.seq, bob.jid)
    history = await (await bob.http()).history(alice.user_id, after=0)
    assert [kept["msg_id"] for kept in history] == [question.msg_id, answer.msg_id]


@pytest.mark.proves(ErrorCode.BODY_EMPTY)
async def test_smack_hears_the_error_code_and_stays_connected(people: People, smack: Smack) -> None:
    alice, bob = await people("alice", "bob")
    phone, terminal = await smack(alice), await bob.device()

    stanza_id = await phone.send_body(raw_envelope(alice, bob, body=[]), bob.entrance)
    refused = await phone.expect(Refused)
    message = alice.text_to(bob, "with a body now")
    await phone.send(message)

    assert (refused.body, refused.stanza_id) == (ErrorCode.BODY_EMPTY, stanza_id)
    assert (await phone.expect(Stored)).msg_id == message.msg_id
    assert (await next_delivered(terminal)).envelope == message


async def test_a_second_smack_sees_what_the_first_one_sends_and_receives(people: People, smack: Smack) -> None:
    alice, bob = await people("alice", "bob")
    phone, laptop = await asyncio.gather(smack(alice), smack(alice))
    terminal = await bob.device()
    question, answer = alice.text_to(bob, "from my phone"), bob.text_to(alice, "to all your devices")

    await phone.send(question)
    copy = await laptop.expect(Carbon)
    await phone.expect(Stored)
    await terminal.send_until_stored(answer)

    assert isinstance(copy.message, Delivered)
    assert (copy.sent, copy.message.envelope) == (True, question)
    for device in (phone, laptop):
        await device.inbox.pick(lambda event: _is_or_copies(event, answer.msg_id), 20)
    assert laptop.inbox.all(Stored) == []


async def test_smack_resumes_its_stream_and_misses_nothing(people: People, smack: Smack) -> None:
    alice, bob = await people("alice", "bob")
    phone, terminal = await smack(alice), await bob.device()
    sent = [bob.text_to(alice, f"number {number}") for number in range(3)]

    await phone.drop()
    for message in sent:
        await terminal.send_until_stored(message)
    resumed = await phone.resume()
    delivered = [await phone.expect(Delivered) for _ in sent]
    answer = alice.text_to(bob, "back again")
    await phone.send(answer)

    assert resumed
    assert [event.envelope for event in delivered] == sent
    assert (await phone.expect(Stored)).msg_id == answer.msg_id
    assert (await next_delivered(terminal)).envelope == answer


@pytest.mark.proves(MsgType.GROUP_TEXT, MsgType.SESSION_ADDED, MsgType.RECEIVED, MsgType.READ, MsgType.RECALL)
async def test_a_group_talks_in_a_terminal_and_over_smack_with_receipts_and_recall(
    people: People, smack: Smack, terminal: Terminal
) -> None:
    alice, bob = await people("alice", "bob")
    phone = await smack(bob)
    await terminal.log_in(alice)

    async with terminal.running("listen", "--json") as listening:
        session_id = json.loads(await terminal.ok("session", "add", bob.user_id, "--json"))["session_id"]
        assert (await next_json(listening))["msg_type"] == MsgType.SESSION_ADDED
        assert (await phone.expect(Delivered)).envelope.msg_type is MsgType.SESSION_ADDED

        question = group_message(bob.user_id, session_id, MsgType.TEXT, {"text": "午饭?"})
        await phone.send(question)
        assert (await next_json(listening))["body"] == question.body
        await _hears(phone, MsgType.RECEIVED, question.msg_id)
        await terminal.ok("read", question.msg_id)
        await _hears(phone, MsgType.READ, question.msg_id)

        await terminal.ok("send", "--session", session_id, "at noon")
        answer = (await phone.expect(Delivered, lambda event: event.envelope.msg_type is MsgType.GROUP_TEXT)).envelope
        for kind in (MsgType.RECEIVED, MsgType.READ):
            await phone.send(receipt(bob.user_id, answer, kind))
            assert (await next_json(listening))["msg_type"] == kind

        await terminal.ok("recall", answer.msg_id)
        await _hears(phone, MsgType.RECALL, answer.msg_id)
        await phone.send(about(bob.user_id, MsgType.RECALL, [question.msg_id], session_id=session_id))
        assert (await next_json(listening))["msg_type"] == MsgType.RECALL

    shown = (await terminal.ok("history", session_id)).splitlines()
    assert [line.partition(" ")[2] for line in shown] == [f"{one.user_id}: [recalled]" for one in (bob, alice)]


async def _hears(device: SmackClient, kind: MsgType, msg_id: str) -> None:
    event = await device.expect(Delivered, lambda event: event.envelope.msg_type is kind)
    assert [element["msg_id"] for element in event.envelope.body] == [msg_id]


def _is_or_copies(event: object, msg_id: str) -> Delivered | None:
    inner = event.message if isinstance(event, Carbon) and not event.sent else event
    return inner if isinstance(inner, Delivered) and inner.envelope.msg_id == msg_id else None
