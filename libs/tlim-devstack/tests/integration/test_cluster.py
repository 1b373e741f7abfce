"""Two nodes of ejabberd make one server: each has all accounts, and either may be killed."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from tlim_devstack.ejabberd import Ejabberd
from tlim_devstack.ports import Ports
from tlim_devstack.stack import Stack
from tlim_devstack.waiting import wait_until
from tlim_devstack.xmpp_servers import DOMAIN

FIRST, SECOND = "ejabberd", "ejabberd-2"


@pytest.fixture
def stack() -> Iterator[Stack]:
    """A stack with a second node, which has not been started."""
    with TemporaryDirectory() as directory:
        ports = Ports.random()
        stack = Stack(Path(directory), ports, further_nodes=[ports.for_another_node()])
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()


def has_account(stack: Stack, node: Ejabberd, user: str) -> bool:
    """Whether a node says so: one that starts may give no answer yet."""
    try:
        answer = httpx.post(
            f"{node.accounts_api}/check_account",
            json={"user": user, "host": DOMAIN},
            headers={"Authorization": f"Bearer {stack.credentials.xmpp_api}"},
            trust_env=False,
            timeout=30,
        )
    except httpx.HTTPError:
        return False
    return answer.is_success and answer.json() == 0


def test_a_second_node_has_all_accounts_also_when_both_nodes_were_killed(stack: Stack) -> None:
    first, second = stack.xmpp, stack.further_nodes[SECOND]
    assert isinstance(first, Ejabberd)
    stack.register_user("before")
    stack.start_service(SECOND)
    second.register("after", "a password")

    def have_all_accounts() -> bool:
        return all(has_account(stack, node, user) for node in (first, second) for user in ("before", "after"))

    wait_until(have_all_accounts, "all accounts on both nodes")

    for killed in ([FIRST], [SECOND], [FIRST, SECOND]):
        pids = {name: stack.supervisor.pid(name) for name in killed}
        for name in killed:
            stack.kill(name)
        for name, pid in pids.items():
            wait_until(lambda name=name, pid=pid: stack.supervisor.pid(name) not in {0, pid}, name)  # type: ignore[misc]
            stack.wait_ready(name)
        wait_until(have_all_accounts, "all accounts on both nodes")
