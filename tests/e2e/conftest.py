"""Wiring: one whole stack for all stories, fresh people for each."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tlim_client.http import HttpClient
from tlim_devstack.ports import Ports
from tlim_devstack.services import GATEWAY, SERVICES
from tlim_devstack.stack import Stack

from tests.e2e.clients.people import People
from tests.e2e.clients.provider import IdentityProvider, running_provider
from tests.e2e.clients.terminal import Terminal
from tests.e2e.clients.web import WEB_ORIGIN

XMPP = os.environ.get("TLIM_E2E_XMPP", "ejabberd")  # or prosody, or openfire (docs/openfire.md): the same stories
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


@pytest.fixture(scope="session")
def provider() -> Iterator[IdentityProvider]:
    """An identity provider whose tokens the stack trusts."""
    with running_provider() as provider:
        yield provider


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, provider: IdentityProvider) -> Iterator[Stack]:
    """The whole system on free ports, with data of its own."""
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
