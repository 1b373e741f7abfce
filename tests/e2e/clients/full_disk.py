"""A story of a full disk: the disk, what is written meanwhile, and what must be there afterwards."""

import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import cast

import pytest
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

from tests.e2e.clients.containers import VOLUMES, ComposeStack
from tests.e2e.clients.people import People, Person, ids_in_history
from tests.e2e.conftest import IN_CONTAINERS, XMPP

FULL_S = 90
"""Each server has some space in reserve, and takes writes until that is used up."""
BACK_S = 180
"""What the system takes until all works again, at the most: containers start anew after a minute without health."""
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


@contextmanager
def system_on(home: Path, volumes: Mapping[str, Path]) -> Iterator[Stack]:
    """A system of the story's own below `home`. In containers these servers have their volumes in these new folders."""
    if not IN_CONTAINERS:
        stack = Stack(home, Ports.random(), XMPP)
        stack.start()
        yield stack
        stack.stop()
        return
    for place in volumes.values():
        place.mkdir()
    places = {VOLUMES[server]: place for server, place in volumes.items()}
    bound = {name: {"driver_opts": {"type": "none", "o": "bind", "device": str(at)}} for name, at in places.items()}
    with tempfile.TemporaryDirectory() as folder:
        override = Path(folder, "disk.yml")
        override.write_text(json.dumps({"volumes": bound}), encoding="utf-8")
        containers = ComposeStack("tlim-stories-disk", [override])
        try:
            containers.start()
            yield cast("Stack", containers)
        finally:
            containers.stop()


@asynccontextmanager
async def people_of(stack: Stack) -> AsyncIterator[People]:
    """Give people of a stack of the story's own; everything they open is closed at the end."""
    async with AsyncExitStack() as opened:
        admin = await opened.enter_async_context(HttpClient(stack.addresses.gateway, token=stack.admin_token()))
        yield People(stack, admin, opened)


def unready(stack: Stack) -> list[str]:
    """Return the services that report that they are not ready."""
    return [name for name in SERVICES if not stack.is_ready(name)]


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
    missing = set(everything)
    while missing:  # the last one that was stored need not be the last one that was sent
        missing.discard((await receiver.expect(Delivered, within=30)).envelope.msg_id)
    assert {event.envelope.msg_id for event in receiver.inbox.all(Delivered)} == everything
