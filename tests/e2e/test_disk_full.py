"""The disk is full while people write: senders are told, and everything goes on by itself when there is space again."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn

import httpx
import pytest
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_client.failures import NotReceivedError
from tlim_client.http import HttpClient
from tlim_client.inbox import Delivered, Received, Refused, Stored
from tlim_client.xmpp import XmppClient
from tlim_devstack import disks
from tlim_devstack.failures import StackError
from tlim_devstack.ports import Ports
from tlim_devstack.services import SERVICES
from tlim_devstack.stack import Stack
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode

from tests.e2e.clients.people import People, Person, ids_in_history
from tests.e2e.conftest import XMPP

SIZE_MIB = 400
"""A fresh stack takes 70 MiB, and PostgreSQL keeps some 100 MiB of its log."""
FULL_S = 90
"""Each server has some space in reserve, and takes writes until that is used up."""
BACK_S = 30
"""What the system takes until all works again by itself, at the most."""
ANSWER_S = 10
"""JetStream's acknowledgement may take 5 s: then the bridge says that it did not come."""


@contextmanager
def mounted_disk(directory: Path, mebibytes: int) -> Iterator[Path]:
    """A small disk. Where none can be mounted the story is skipped; TLIM_E2E_DISK=always (as in CI) makes it fail."""
    with ExitStack() as mounted:
        try:
            mounted.enter_context(disks.small_disk(directory, mebibytes))
        except StackError as error:
            if os.environ.get("TLIM_E2E_DISK") == "always":
                pytest.fail(str(error))
            pytest.skip(str(error))
        yield directory


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_disk(tmp_path / "disk", SIZE_MIB) as directory:
        yield directory


@pytest.fixture
def cramped_stack(disk: Path) -> Iterator[Stack]:
    """A whole system on a small disk."""
    stack = Stack(disk / "home", Ports.random(), XMPP)
    stack.start()
    yield stack
    stack.stop()


@asynccontextmanager
async def people_of(stack: Stack) -> AsyncIterator[People]:
    async with AsyncExitStack() as opened:
        admin = await opened.enter_async_context(HttpClient(stack.addresses.gateway, token=stack.admin_token()))
        yield People(stack, admin, opened)


@pytest.fixture
async def cramped_people(cramped_stack: Stack) -> AsyncIterator[People]:
    async with people_of(cramped_stack) as people:
        yield people


def unready(stack: Stack) -> list[str]:
    """Return the services that report that they are not ready."""
    statuses = {}
    for name in SERVICES:
        with suppress(httpx.TransportError):
            answer = httpx.get(f"http://127.0.0.1:{stack.services.port(name)}/readyz", trust_env=False)
            statuses[name] = answer.status_code
    return [name for name in SERVICES if statuses.get(name) != HTTPStatus.OK]


async def write(phone: XmppClient, message: Envelope) -> Stored | Refused | None:
    """Send a message once and return the answer; None: there was none."""
    phone.send(message)

    def about_it(event: Received) -> Stored | Refused | None:
        return event if isinstance(event, Stored | Refused) and event.msg_id == message.msg_id else None

    try:
        return await phone.inbox.pick(about_it, ANSWER_S)
    except NotReceivedError:
        return None


async def check_all_arrived(sent: list[Envelope], author: Person, reader: HttpClient, receiver: XmppClient) -> None:
    """Check that history has all these messages and nothing else, and that the receiver's device got the same."""
    everything = {message.msg_id for message in sent}
    assert everything == set(await ids_in_history(reader, author))
    await receiver.expect(Delivered, lambda event: event.envelope == sent[-1])
    assert {event.envelope.msg_id for event in receiver.inbox.all(Delivered)} == everything


@pytest.mark.timeout(400)
@pytest.mark.proves("promise kept", ErrorCode.UNAVAILABLE)
async def test_a_full_disk_is_told_and_all_goes_on_when_there_is_space(
    cramped_stack: Stack, cramped_people: People, disk: Path
) -> None:
    alice, bob = await cramped_people("alice", "bob")
    phone, receiver, reader = await alice.device(), await bob.device(), await bob.http()
    sent: list[Envelope] = []

    async def answer() -> Stored | Refused | None:
        sent.append(alice.text_to(bob, f"number {len(sent)}"))
        return await write(phone, sent[-1])

    for _ in range(20):
        assert isinstance(await answer(), Stored)

    async with asyncio.timeout(FULL_S):
        while not isinstance(told := await answer(), Refused):
            await asyncio.to_thread(disks.fill, disk / "full")
    assert told.code is ErrorCode.UNAVAILABLE
    assert await asyncio.to_thread(unready, cramped_stack)

    (disk / "full").unlink()
    async for attempt in AsyncRetrying(stop=stop_after_delay(BACK_S), wait=wait_fixed(0.5), reraise=True):
        with attempt:
            assert isinstance(await answer(), Stored)
            assert not await asyncio.to_thread(unready, cramped_stack)
    for message in sent:
        await phone.send_until_stored(message)
    await check_all_arrived(sent, alice, reader, receiver)
    assert cramped_stack.supervisor.is_running()


@pytest.mark.parametrize(("knob", "outcome"), [("", pytest.skip.Exception), ("always", pytest.fail.Exception)])
def test_the_story_is_skipped_where_mount_is_not_permitted_and_fails_if_ci_wants_it(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, knob: str, outcome: type[BaseException]
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise StackError("no file system can be mounted here")

    monkeypatch.setenv("TLIM_E2E_DISK", knob)
    monkeypatch.setattr(disks, "small_disk", refuse)
    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception), match="no file system") as told:
        request.getfixturevalue("disk")
    assert told.type is outcome
