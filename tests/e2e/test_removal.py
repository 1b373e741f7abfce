"""Taking rights away: in effect when it is answered with success; refused, with nothing changed, while it cannot be."""

import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import pytest
from tlim_client.compose import group_message
from tlim_client.failures import RefusedError
from tlim_client.http import HttpClient
from tlim_client.inbox import Delivered
from tlim_client.xmpp import XmppClient
from tlim_devstack import nats
from tlim_devstack.privileges import hand_over
from tlim_devstack.stack import Stack
from tlim_devstack.waiting import wait_until
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import REGISTRY, MsgType

from tests.e2e.clients.full_disk import unready
from tests.e2e.clients.people import People, Person, next_chat

NOTICED_S = 30.0
"""NATS reads its file when it gets round to the signal."""

Take = Callable[[HttpClient, HttpClient, str, str], Awaitable[Any]]

TAKING: dict[str, Take] = {
    "removal": lambda alice, _, session, bob: alice.change_session(session, remove=[bob]),
    "leaving": lambda _, bobs, session, bob: bobs.change_session(session, remove=[bob]),
    "deletion": lambda alice, _, session, __: alice.delete_session(session),
}


def _users(stack: Stack, passwords: dict[str, str]) -> None:
    """Let the running NATS server take these passwords. It ends the connections of users whose password changed."""
    directory = stack.home / "nats"
    nats.write_config(directory, passwords, stack.credentials.nats_monitor)
    hand_over(directory, "nats")
    os.kill(stack.supervisor.pid("nats"), signal.SIGHUP)


@contextmanager
def _without_nats(stack: Stack, service: str) -> Iterator[None]:
    """Keep one service away from NATS, and say so when it has noticed. All others stay connected.

    At the end the service is ready again.
    """
    _users(stack, {**stack.credentials.nats, service: "another"})
    try:
        wait_until(lambda: service in unready(stack), f"{service} without NATS", NOTICED_S)
        yield
    finally:
        _users(stack, stack.credentials.nats)
        stack.wait_ready(service)


def _text(sender: Person, session_id: str, text: str) -> Envelope:
    return group_message(sender.user_id, session_id, MsgType.TEXT, {"text": text})


async def _ids(reader: HttpClient, session_id: str) -> list[str]:
    return [kept["msg_id"] for kept in await reader.history(session_id, after=0)]


async def _refusal_of(attempt: Awaitable[Any]) -> tuple[int | None, ErrorCode | None]:
    with pytest.raises(RefusedError) as refusal:
        await attempt
    return refusal.value.status, refusal.value.code


async def _assert_they_talk(one: Person, device: XmppClient, other: XmppClient, session_id: str) -> str:
    message = _text(one, session_id, "still here")
    await device.send_until_stored(message)
    assert (await next_chat(other)).envelope == message
    return message.msg_id


@pytest.mark.proves(ErrorCode.UNAVAILABLE, "PATCH /v1/sessions/{session_id}", "DELETE /v1/sessions/{session_id}")
@pytest.mark.parametrize("how", TAKING)
async def test_while_sessions_are_cut_off_from_nats_nothing_is_taken_away_and_afterwards_it_is_at_once(
    people: People, disturbed_stack: Stack, how: str
) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    phone, bobs, carols = await alice.device(), await bob.device(), await carol.device()
    client, reader = await alice.http(), await bob.http()
    session_id = (await client.add_session([bob.user_id, carol.user_id]))["session_id"]
    before = await client.session(session_id)

    with _without_nats(disturbed_stack, "session-api"):
        for _ in range(2):
            refused = await _refusal_of(TAKING[how](client, reader, session_id, bob.user_id))
            assert refused == (HTTPStatus.SERVICE_UNAVAILABLE, ErrorCode.UNAVAILABLE)
        assert await client.session(session_id) == await reader.session(session_id) == before
        ids = [await _assert_they_talk(alice, phone, bobs, session_id)]
        ids.append(await _assert_they_talk(bob, bobs, phone, session_id))
        assert await _ids(reader, session_id) == ids

    await TAKING[how](client, reader, session_id, bob.user_id)
    with pytest.raises(RefusedError) as refusal:  # straight after the answer
        await bobs.send_until_stored(_text(bob, session_id, "and now"))
    later = _text(alice, session_id, "without bob")
    notice = MsgType.SESSION_DELETED if how == "deletion" else MsgType.SESSION_CHANGED
    if how == "deletion":
        assert refusal.value.code is ErrorCode.SESSION_UNKNOWN
        assert (await _refusal_of(phone.send_until_stored(later)))[1] is ErrorCode.SESSION_UNKNOWN
    else:
        assert refusal.value.code is ErrorCode.NOT_ALLOWED
        await phone.send_until_stored(later)
        await carols.expect(Delivered, lambda event: event.envelope == later)
    assert (await _refusal_of(reader.session(session_id)))[1] is ErrorCode.SESSION_UNKNOWN
    assert await _ids(reader, session_id) == ids
    assert later.msg_id not in {item["msg_id"] for item in (await reader.sync())[0]}
    marker = alice.text_to(bob, "you heard nothing else")
    await phone.send_until_stored(marker)
    await bobs.expect(Delivered, lambda event: event.envelope == marker)
    heard = [event.envelope for event in bobs.inbox.all(Delivered)]
    assert [one.msg_id for one in heard if REGISTRY[one.msg_type].is_chat] == [ids[0], marker.msg_id]
    assert [one.msg_type for one in heard if not REGISTRY[one.msg_type].is_chat] == [MsgType.SESSION_ADDED, notice]
