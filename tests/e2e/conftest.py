"""Wiring: one whole stack for all stories, fresh people for each."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import pytest
from tlim_client.http import HttpClient
from tlim_devstack.ports import Ports
from tlim_devstack.services import GATEWAY, SERVICES
from tlim_devstack.stack import Stack

from tests.e2e.clients.containers import ComposeStack
from tests.e2e.clients.people import People
from tests.e2e.clients.provider import IdentityProvider, running_provider
from tests.e2e.clients.terminal import Terminal
from tests.e2e.clients.web import WEB_ORIGIN

XMPP = os.environ.get("TLIM_E2E_XMPP", "ejabberd")  # or prosody, or openfire (docs/openfire.md): the same stories
IN_CONTAINERS = os.environ.get("TLIM_E2E_STACK") == "compose"  # the same stories on docker-compose.yml
BEHIND_THE_DOORS = {
    "test_openapi": "asks each service at its own port",
    "test_the_gateway_allows_pages_what_each_service_does": "asks each service at its own port",
    "test_only_the_author_recalls_only_within_the_window_and_only_what_is_there": "changes a row in the database",
    "test_a_file_is_described_without_its_bytes_and_what_happens_to_it_is_told_for_audit": "reads a stream of NATS",
    "test_removal": "changes the users of NATS while it runs",
    "test_disk_full": "has a stack of its own on a small disk",
    "test_servers_disk_full": "has a stack of its own on a small disk",
    "test_identity_provider": "has a provider on loopback, which containers do not reach",
}
"""File or function → why its stories need more than the doors, which are all that docker-compose.yml opens."""
MANY = "100000/minute"
RECALL_WINDOW_S = 3600
"""The two minutes of production would make a test of recalls depend on the speed of the machine."""
LIMITS = {
    "TLIM_RECALL_WINDOW": f"PT{RECALL_WINDOW_S}S",
    "TLIM_TOKEN_ATTEMPTS_PER_ADDRESS": MANY,  # all people of all tests log in from one address
    "TLIM_UPLOADS_PER_USER": MANY,  # made-up requests are all one person's
}


def not_on_openfire(reason: str) -> pytest.MarkDecorator:
    """Skip a story there; docs/openfire.md lists the reasons under "What does not hold"."""
    return pytest.mark.skipif(XMPP == "openfire", reason=f"Openfire: {reason}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip on containers what needs more than their doors."""
    for item in items if IN_CONTAINERS else ():
        names = (item.path.stem, getattr(item, "originalname", item.name))
        for reason in filter(None, map(BEHIND_THE_DOORS.get, names)):
            item.add_marker(pytest.mark.skip(reason=f"compose: {reason}"))


@pytest.fixture(scope="session")
def provider() -> Iterator[IdentityProvider]:
    """An identity provider whose tokens the stack trusts."""
    with running_provider() as provider:
        yield provider


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, provider: IdentityProvider) -> Iterator[Stack]:
    """The whole system on free ports, with data of its own."""
    if IN_CONTAINERS:
        containers = ComposeStack()
        containers.start()
        yield cast("Stack", containers)  # it has all of a Stack that the stories use, except BEHIND_THE_DOORS
        containers.stop()
        return
    web = {"TLIM_CORS_ORIGINS": json.dumps([WEB_ORIGIN])}
    environment = {**LIMITS, **web, "TLIM_EXTERNAL_ISSUERS": provider.setting}
    running = Stack(tmp_path_factory.mktemp("stack"), Ports.random(), XMPP, environment=environment)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def disturbed_stack(stack: Stack) -> Iterator[Stack]:
    """The stack, for tests that break parts of it; afterwards it is repaired for the next test."""
    yield stack
    states = stack.supervisor.states()
    stopped = [name for name, state in states.items() if state in {"STOPPED", "STOPPING", "FATAL"}]
    stack.supervisor.stop(stopped)  # a test that failed may have left a part stopped, or just stopping
    stack.supervisor.start(*stopped)
    for name in ("nats", "postgres", "s3", XMPP, *SERVICES, GATEWAY):
        stack.wait_ready(name)


@pytest.fixture(scope="session")
def admin_token(stack: Stack) -> str:
    return stack.admin_token()


@pytest.fixture
async def people(stack: Stack, admin_token: str) -> AsyncIterator[People]:
    """Makes people who are registered and known; everything they open is closed after the test."""
    async with AsyncExitStack() as opened:
        admin = await opened.enter_async_context(HttpClient(stack.addresses.gateway, token=admin_token))
        yield People(stack, admin, opened)


@pytest.fixture
def terminal(tmp_path: Path, stack: Stack) -> Terminal:
    return Terminal(tmp_path, stack)
