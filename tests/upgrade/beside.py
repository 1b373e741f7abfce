"""An upgrade as it is made: `make upgrade-beside`. The earlier release's system runs, and people use it.

Then NATS gets this release's users, and the jobs migrate and provision, while the old processes serve. The new ones
come beside them, XMPP server and gateway are replaced, and the old ones go. After that the old ones come back without
the new ones, as in a rollback, and go for good. PostgreSQL and S3 run on, because both releases start the same servers.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tlim_client.http import HttpClient
from tlim_devstack.ports import Ports
from tlim_devstack.services import service_of

from tests.e2e.clients.flow import Flow, assert_all_delivered, assert_all_kept
from tests.e2e.clients.operator import Operator
from tests.e2e.clients.people import People
from tests.upgrade.people import PATIENCE_S, assert_all_there, assert_catches_up, use_everything, write_to_absent
from tests.upgrade.release import EARLIER, NoHistoryError, extract
from tests.upgrade.system import NEW, OLD, UpgradedStack, running_release

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[UpgradedStack]:
    with tempfile.TemporaryDirectory(prefix="tlim-upgrade-") as folder:
        try:
            extract(EARLIER, Path(folder))
        except NoHistoryError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        home, ports = tmp_path / "stack", Ports.random()
        with running_release(Path(folder), home, ports):
            upgraded = UpgradedStack(home, ports)
            try:
                yield upgraded
            finally:
                upgraded.stop()


@pytest.fixture
async def people(stack: UpgradedStack) -> AsyncIterator[People]:
    async with AsyncExitStack() as opened:
        admin = await opened.enter_async_context(HttpClient(stack.addresses.gateway, token=stack.admin_token()))
        yield People(stack, admin, opened)


async def messages_flow(people: People, *steps: Callable[[], None], in_order: bool = True) -> None:
    """Assert that what two new people write before, during and after each step is stored once, and delivered."""
    alice, bob = await people("alice", "bob")
    flow, receiver = Flow(alice, await alice.device(), bob, patience=PATIENCE_S), await bob.device()
    await flow.disturbed_by(*steps)
    await (assert_all_kept if in_order else assert_all_delivered)(flow, alice, bob, receiver)


def operate(stack: UpgradedStack, *arguments: str) -> str:
    """Run the operator's command beside this release's processes."""
    services = {service_of(name): f"127.0.0.1:{stack.services.port(name)}" for name in NEW}
    addresses = {f"TLIM_{service.upper().replace('-', '_')}": address for service, address in services.items()}
    keys = f"{stack.addresses.gateway}/.well-known/jwks.json"
    return Operator(stack.home, stack).run(*arguments, **addresses, TLIM_JWKS_URL=keys)


async def test_an_upgrade_under_load_and_a_rollback_lose_nothing_and_keep_the_order(
    people: People, stack: UpgradedStack, tmp_path: Path
) -> None:
    carol, dave, erin, frank = await people("carol", "dave", "erin", "frank")
    shared = await use_everything(carol, dave, tmp_path)
    missed = await write_to_absent(erin, frank)

    await messages_flow(people, stack.renew_nats, stack.prepare, stack.bring_new)
    shared += await use_everything(carol, dave, tmp_path)  # the old gateway knows only the old processes
    # In any order: a message that the XMPP server kept for Bob may come before those that it lost and gets again.
    await messages_flow(people, stack.renew_doors, in_order=False)
    shared += await use_everything(carol, dave, tmp_path)
    await messages_flow(people, lambda: stack.go(OLD))
    await assert_catches_up(frank, missed)

    missed = await write_to_absent(erin, frank)
    await messages_flow(people, lambda: stack.come(OLD), lambda: stack.go(NEW))  # the rollback
    await assert_catches_up(frank, missed)
    shared += await use_everything(carol, dave, tmp_path)  # the old processes alone, on the new schema
    missed = await write_to_absent(erin, frank)
    await messages_flow(people, lambda: stack.come(NEW), lambda: stack.go(OLD))
    await assert_catches_up(frank, missed)

    shared += await use_everything(carol, dave, tmp_path)
    await assert_all_there(shared, carol, dave, tmp_path)
    verified = await asyncio.to_thread(operate, stack, "verify", "--bytes")
    assert verified.endswith("all of it agrees\n"), verified
    await asyncio.to_thread(operate, stack, "doctor")
    assert "Violation" not in stack.logs("nats"), "a process may not do what it does"
