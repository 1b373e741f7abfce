"""Old and new processes in one system, as in a rolling update: `make upgrade-beside FROM=commit`.

Databases, streams, XMPP server and gateway are this release's, as they are once an update has begun. Each service has
one process of each release. While people write, change sessions and exchange files, the new processes come beside the
old ones, the old ones go, and then the other way round, as after a rollback.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
from tlim_client.compose import group_message
from tlim_client.http import HttpClient
from tlim_client.inbox import Delivered
from tlim_devstack.ports import Ports
from tlim_devstack.services import SERVICES, ServicePrograms
from tlim_devstack.stack import Stack
from tlim_devstack.supervision import Program
from tlim_devstack.waiting import free_port
from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import MsgType

from tests.e2e.clients.flow import Flow, assert_all_kept
from tests.e2e.clients.operator import Operator
from tests.e2e.clients.people import People, Person
from tests.e2e.conftest import LIMITS
from tests.upgrade.release import extract, sources

ROUNDS = 4
"""Each process of a service is asked twice."""

PATIENCE_S = 180.0

pytestmark = pytest.mark.timeout(1200)

OLD = tuple(f"{service}-old" for service in SERVICES)


@dataclass(frozen=True, kw_only=True)
class MixedPrograms(ServicePrograms):
    """The services' programs; those in OLD run the code of the earlier release, which is in `tree`."""

    tree: Path

    def _service(self, name: str) -> Program:
        program = super()._service(name)
        if name not in OLD:
            return program
        return replace(program, environment={**program.environment, "PYTHONPATH": sources(self.tree)})


class MixedStack(Stack):
    """A system with two processes of each service, one of each release. A start leaves the old ones stopped."""

    def __init__(self, home: Path, tree: Path) -> None:
        ports = {name: free_port() for name in OLD}
        super().__init__(home, Ports.random(), environment=LIMITS, further=ports)
        programs = {one.name: getattr(self.services, one.name) for one in fields(self.services)}
        self.services = MixedPrograms(**programs, tree=tree)

    def come(self, names: Sequence[str]) -> None:
        """Start processes, and wait until they are ready."""
        self.supervisor.start(*names)
        for name in names:
            self.wait_ready(name)

    def go(self, names: Sequence[str]) -> None:
        """Let processes end as an update does: each gives back what it has."""
        self.supervisor.stop(names)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[MixedStack]:
    with tempfile.TemporaryDirectory(prefix="tlim-upgrade-") as folder:
        tree = Path(folder)
        tree.chmod(0o755)  # services run as users of their own
        extract(os.environ["UPGRADE_FROM"], tree)
        mixed = MixedStack(tmp_path / "stack", tree)
        mixed.start()
        try:
            yield mixed
        finally:
            mixed.stop()


@pytest.fixture
async def people(stack: MixedStack) -> AsyncIterator[People]:
    async with AsyncExitStack() as opened:
        admin = await opened.enter_async_context(HttpClient(stack.addresses.gateway, token=stack.admin_token()))
        yield People(stack, admin, opened)


def is_of(envelope: Envelope) -> Callable[[Delivered], bool]:
    return lambda event: event.envelope == envelope


async def use_everything(alice: Person, bob: Person, folder: Path) -> None:
    """Make sessions, send a file to each, and read it as a member. The gateway asks the processes in turn."""
    one, other = await alice.http(), await bob.http()
    phone, receiver = await alice.device(), await bob.device()
    for number in range(ROUNDS):
        source = folder / f"{number}.txt"
        source.write_text(f"file {number}")
        session_id, file_id = str((await one.add_session([bob.user_id]))["session_id"]), await one.upload(source)
        carrying = group_message(alice.user_id, session_id, MsgType.GROUP_FILE, {"file_id": file_id})
        stored = await phone.send_until_stored(carrying, give_up=PATIENCE_S)
        await receiver.expect(Delivered, is_of(carrying), within=PATIENCE_S)
        assert stored.seq in [entry["seq"] for entry in await other.history(session_id)]
        assert (await other.download(file_id, folder / "back.txt")).path.read_text() == f"file {number}"


async def test_nothing_is_lost_or_out_of_order_while_old_and_new_processes_overlap(
    people: People, stack: MixedStack, tmp_path: Path
) -> None:
    alice, bob = await people("alice", "bob")
    flow, receiver = Flow(alice, await alice.device(), bob, patience=PATIENCE_S), await bob.device()
    carol, dave = await people("carol", "dave")

    stack.come(OLD)
    await use_everything(carol, dave, tmp_path)
    await flow.disturbed_by(
        lambda: stack.go(SERVICES),  # the old ones alone, on the new schema
        lambda: stack.come(SERVICES),  # the update: the new ones come beside them,
        lambda: stack.go(OLD),  # and the old ones go
        lambda: stack.come(OLD),  # the beginning of a rollback
    )

    await use_everything(carol, dave, tmp_path)
    await assert_all_kept(flow, alice, bob, receiver)
    verified = Operator(stack.home, stack).run("verify", "--bytes")
    assert verified.endswith("all of it agrees\n"), verified
