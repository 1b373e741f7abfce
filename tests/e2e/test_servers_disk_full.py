"""One server cannot write: what needs it is refused, all else goes on, and with space again everything works."""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import pytest
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_client.http import HttpClient
from tlim_client.inbox import Delivered, Stored
from tlim_devstack import disks
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
from tests.e2e.conftest import IN_CONTAINERS, XMPP

SIZES_MIB = {"postgres": 200, "s3": 2200 if IN_CONTAINERS else 200, "ejabberd": 60}
"""What a fresh server needs, and some megabytes in reserve. A minute after its start SeaweedFS makes a first volume
only where 2 GiB are free. A stack of processes writes to it before."""


@dataclass(frozen=True)
class NarrowStack:
    """A system of which some servers have small disks of their own: name of the server → where its disk is."""

    stack: Stack
    disks: Mapping[str, Path]


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NarrowStack]:
    """One system for all stories. Each fills the disk of one server, and at its end all is well again."""
    home = tmp_path_factory.mktemp("narrow") / "home"
    home.mkdir()
    with ExitStack() as opened:
        mounted = {
            server: opened.enter_context(mounted_disk(home / server, size)) for server, size in SIZES_MIB.items()
        }
        volumes = {server: disk / "volume" for server, disk in mounted.items()}
        yield NarrowStack(opened.enter_context(system_on(home, volumes)), mounted)


@pytest.fixture
async def narrow_people(narrow: NarrowStack) -> AsyncIterator[People]:
    async with people_of(narrow.stack) as people:
        yield people


async def _fill_until(disk: Path, is_refused: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(FULL_S):
        while not await is_refused():
            await asyncio.to_thread(disks.fill, disk / "full")


async def _all_is_well(stack: Stack, works: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something works, and all services are ready."""
    async for attempt in AsyncRetrying(stop=stop_after_delay(BACK_S), wait=wait_fixed(0.5), reraise=True):
        with attempt:
            assert await works()
            assert await asyncio.to_thread(unready, stack) == []


async def _all_are_read(client: HttpClient, kept: Mapping[str, bytes], directory: Path) -> None:
    for file_id, content in kept.items():
        assert (await client.download(file_id, directory / file_id)).path.read_bytes() == content


@pytest.mark.timeout(900)
@pytest.mark.proves("promise kept")
async def test_while_postgresql_cannot_write_nothing_is_said_to_be_stored_and_then_everything_is(
    narrow: NarrowStack, narrow_people: People
) -> None:
    stack, disk = narrow.stack, narrow.disks["postgres"]
    alice, bob = await narrow_people("alice", "bob")
    phone, receiver, reader = await alice.device(), await bob.device(), await bob.http()
    sent: list[Envelope] = []
    numbers = itertools.count()

    async def is_stored() -> bool:
        sent.append(alice.text_to(bob, f"number {next(numbers)}" + secrets.token_hex(20_000)))
        return isinstance(await write(phone, sent[-1]), Stored)

    async def is_refused() -> bool:
        return not await is_stored()

    for _ in range(5):
        assert await is_stored()
    await _fill_until(disk, is_refused)
    await asyncio.to_thread(wait_until, lambda: "message-store" in unready(stack), "message-store to be unready")

    (disk / "full").unlink()
    await _all_is_well(stack, is_stored)
    for message in sent:
        await phone.send_until_stored(message)
    await check_all_arrived(sent, alice, reader, receiver)


@pytest.mark.timeout(900)
@pytest.mark.proves("POST /v1/files", ErrorCode.UNAVAILABLE)
async def test_while_s3_cannot_write_uploads_are_refused_and_what_is_there_is_read(
    narrow: NarrowStack, narrow_people: People, tmp_path: Path
) -> None:
    stack, disk = narrow.stack, narrow.disks["s3"]
    alice, bob = await narrow_people("alice", "bob")
    phone, client = await alice.device(), await alice.http()
    kept: dict[str, bytes] = {}

    async def upload() -> int:
        content = secrets.token_bytes(300_000)
        answer = await client.ask("POST", "/v1/files", content=content)
        if answer.is_success:
            kept[answer.json()["file_id"]] = content
        else:
            assert answer.json()["code"] == ErrorCode.UNAVAILABLE
        return answer.status_code

    async def is_refused() -> bool:
        return await upload() == HTTPStatus.SERVICE_UNAVAILABLE

    async def is_taken() -> bool:
        return await upload() == HTTPStatus.CREATED

    async def all_works() -> bool:
        is_new_taken = await is_taken()
        await _all_are_read(client, kept, tmp_path)
        return is_new_taken

    assert await is_taken()
    await _fill_until(disk, is_refused)
    await asyncio.to_thread(wait_until, lambda: unready(stack) == ["file-api"], "only file-api to be unready")
    assert isinstance(await write(phone, alice.text_to(bob, "meanwhile")), Stored)
    await _all_are_read(client, kept, tmp_path)

    (disk / "full").unlink()
    await _all_is_well(stack, all_works)  # S3 may take writes again before the keeper starts it anew: then reads fail


@pytest.mark.timeout(900)
@pytest.mark.proves("POST /v1/users/import", ErrorCode.UNAVAILABLE)
@pytest.mark.skipif(XMPP != "ejabberd", reason="only ejabberd has an API for accounts")
async def test_while_ejabberd_cannot_write_no_account_is_made_and_messages_go_on(
    narrow: NarrowStack, narrow_people: People
) -> None:
    stack, disk = narrow.stack, narrow.disks["ejabberd"]
    alice, bob = await narrow_people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    made: dict[str, str] = {}

    async def hire() -> int:
        rows = {f"hired-{secrets.token_hex(6)}": secrets.token_hex(60) for _ in range(20)}
        users = [{"user_id": user, "password": password} for user, password in rows.items()]
        answer = await narrow_people.admin.ask("POST", "/v1/users/import", json=users)
        if answer.is_success:
            made.update(rows)
        return answer.status_code

    async def is_refused() -> bool:
        return await hire() == HTTPStatus.SERVICE_UNAVAILABLE

    async def is_done() -> bool:
        return await hire() == HTTPStatus.OK

    await _fill_until(disk, is_refused)
    meanwhile = alice.text_to(bob, "meanwhile")
    await phone.send_until_stored(meanwhile)
    await receiver.expect(Delivered, lambda event: event.envelope == meanwhile)

    (disk / "full").unlink()
    await _all_is_well(stack, is_done)
    afterwards = alice.text_to(bob, "afterwards")
    await phone.send_until_stored(afterwards)
    await receiver.expect(Delivered, lambda event: event.envelope == afterwards)
    newest, password = made.popitem()
    await narrow_people.with_account(newest, password).device()
