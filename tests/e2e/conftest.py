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

from tests.e2e.clients.cluster import ClusterStack
from tests.e2e.clients.collector import Collector, running_collector
from tests.e2e.clients.containers import ComposeStack
from tests.e2e.clients.manifests import OVERLAY
from tests.e2e.clients.people import People
from tests.e2e.clients.production import PRODUCTION
from tests.e2e.clients.provider import IdentityProvider, running_provider
from tests.e2e.clients.terminal import Terminal
from tests.e2e.clients.web import WEB_ORIGIN

XMPP = os.environ.get("TLIM_E2E_XMPP", "ejabberd")  # or prosody, or openfire (docs/openfire.md): the same stories
IN_CLUSTER = os.environ.get("TLIM_E2E_STACK") == "kubernetes"  # the same stories in the cluster of KUBECONFIG
IN_CONTAINERS = IN_CLUSTER or os.environ.get("TLIM_E2E_STACK") == "compose"  # or on docker-compose.yml
BEHIND_THE_DOORS = {
    "test_openapi": "asks each service at its own port",
    "test_the_gateway_allows_pages_what_each_service_does": "asks each service at its own port",
    "test_only_the_author_recalls_only_within_the_window_and_only_what_is_there": "changes a row in the database",
    "test_a_file_is_described_without_its_bytes_and_what_happens_to_it_is_told_for_audit": "reads a stream of NATS",
    "test_removal": "changes the users of NATS while it runs",
    "test_backup": "runs the command beside the servers",
    "test_doctor": "runs the command beside the servers",
    "test_person": "runs the command beside the servers",
    "test_tracing": "has a collector on loopback, which containers do not reach",
    "test_identity_provider": "has a provider on loopback, which containers do not reach",
}
"""File or function → why its stories need more than the doors, which are all that containers open."""
BEHIND_KUBERNETES = {
    "test_jetstream_lost": "takes away a volume",
    "test_disk_full": "has a system of its own on a small disk",
    "test_servers_disk_full": "has a system of its own on a small disk",
    "test_accounts_that_a_killed_server_lost_are_made_by_the_same_import_again": "SIGKILL is not in kubectl's hands",
}
BEHIND_PRODUCTION = {
    "test_the_door_to_s3_lets_nothing_through_but_signed_addresses_of_files": "S3 is outside, without our door",
}
MANY = "100000/minute"
RECALL_WINDOW_S = 3600
"""The two minutes of production would make a test of recalls depend on the speed of the machine."""
LIMITS = {
    "TLIM_RECALL_WINDOW": f"PT{RECALL_WINDOW_S}S",
    "TLIM_TOKEN_ATTEMPTS_PER_ADDRESS": MANY,  # all people of all tests log in from one address
    "TLIM_UPLOADS_PER_USER": MANY,  # made-up requests are all one person's
    "TLIM_SYSTEM_SEND_TIMEOUT": "PT25S",  # for a busy machine; our own client waits 30 s
}


def not_on_openfire(reason: str) -> pytest.MarkDecorator:
    """Skip a story there; docs/openfire.md lists the reasons under "What does not hold"."""
    return pytest.mark.skipif(XMPP == "openfire", reason=f"Openfire: {reason}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip on containers what needs more than their doors."""
    for item in items if IN_CONTAINERS else ():
        names = (item.path.stem, getattr(item, "originalname", item.name))
        behind = {
            **BEHIND_THE_DOORS,
            **(BEHIND_KUBERNETES if IN_CLUSTER else {}),
            **(BEHIND_PRODUCTION if IN_CLUSTER and OVERLAY == PRODUCTION else {}),
        }
        for reason in filter(None, map(behind.get, names)):
            item.add_marker(pytest.mark.skip(reason=f"containers: {reason}"))


@pytest.fixture(scope="session")
def provider() -> Iterator[IdentityProvider]:
    """An identity provider whose tokens the stack trusts."""
    with running_provider() as provider:
        yield provider


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """A collector to which the services of the stack send their traces."""
    with running_collector() as collector:
        yield collector


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory, provider: IdentityProvider, collector: Collector
) -> Iterator[Stack]:
    """The whole system on free ports, with data of its own."""
    if IN_CONTAINERS:
        containers = ClusterStack() if IN_CLUSTER else ComposeStack()
        containers.start()
        yield cast("Stack", containers)  # it has all of a Stack that the stories use, except BEHIND_THE_DOORS
        containers.stop()
        return
    web = {"TLIM_CORS_ORIGINS": json.dumps([WEB_ORIGIN])}
    traces = {"TLIM_TRACES_URL": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}  # milliseconds
    environment = {**LIMITS, **web, **traces, "TLIM_EXTERNAL_ISSUERS": provider.setting}
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
