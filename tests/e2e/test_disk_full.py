"""The disk is full while people write: senders are told, and everything goes on by itself when there is space again."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_client.inbox import Refused, Stored
from tlim_devstack import disks
from tlim_devstack.failures import StackError
from tlim_devstack.stack import Stack
from tlim_devstack.waiting import wait_until
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode

from tests.e2e.clients.full_disk import (
    BACK_S,
    FULL_S,
    check_all_arrived,
    mounted_disk,
    people_of,
    system_on,
    unready,
    write,
)
from tests.e2e.clients.people import People

SIZE_MIB = 400
"""A fresh stack takes 70 MiB, and PostgreSQL keeps some 100 MiB of its log."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_disk(tmp_path / "disk", SIZE_MIB) as directory:
        yield directory


@pytest.fixture
def cramped_stack(disk: Path) -> Iterator[Stack]:
    """A whole system on a small disk."""
    volumes = {server: disk / server for server in ("nats", "postgres", "s3", "ejabberd")}
    with system_on(disk / "home", volumes) as stack:
        yield stack


@pytest.fixture
async def cramped_people(cramped_stack: Stack) -> AsyncIterator[People]:
    async with people_of(cramped_stack) as people:
        yield people


@pytest.mark.timeout(900)
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
    await asyncio.to_thread(wait_until, lambda: bool(unready(cramped_stack)), "somebody to be unready")

    (disk / "full").unlink()
    async for attempt in AsyncRetrying(stop=stop_after_delay(BACK_S), wait=wait_fixed(0.5), reraise=True):
        with attempt:
            assert isinstance(await answer(), Stored)
            assert not await asyncio.to_thread(unready, cramped_stack)
    for message in sent:
        await phone.send_until_stored(message)
    await check_all_arrived(sent, alice, reader, receiver)
    wait_until(lambda: set(cramped_stack.supervisor.states().values()) == {"RUNNING"}, "each part", BACK_S)


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
