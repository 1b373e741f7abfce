"""In a cluster: pods are replaced under load, as an update does it, and a policy cuts what it should."""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_client.http import HttpClient
from tlim_client.inbox import Delivered
from tlim_devstack.services import GATEWAY, SERVICES
from tlim_devstack.stack import Stack

from tests.deploy.rendering import rendered
from tests.e2e.clients.cluster import ClusterStack
from tests.e2e.clients.containers import printed_by
from tests.e2e.clients.flow import CALM, Flow, assert_all_delivered, assert_all_kept, assert_stored
from tests.e2e.clients.people import People, Person
from tests.e2e.conftest import IN_CLUSTER

pytestmark = pytest.mark.skipif(not IN_CLUSTER, reason="needs a cluster: make e2e-k8s")

AWAY_S = 180
"""Three times what a liveness probe bears (six failures, ten seconds apart)."""

ASKING = 4
"""People of the test that ask over HTTP at the same time."""

JWKS = "/.well-known/jwks.json"
"""What anybody may ask the bridge for."""

CONNECT = """
import socket, sys
address = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]))[0][4]  # everybody may ask for names
try:
    socket.create_connection(address, 10)
except OSError:
    print("cut")
else:
    print("reached")
"""
"""What a pod runs to see whether it reaches another. A policy drops or refuses, as the cluster likes."""


DRY_RUN = "tlim-dry-run"
"""A namespace for what is judged only."""


@pytest.fixture
def cluster(disturbed_stack: Stack) -> ClusterStack:
    assert isinstance(disturbed_stack, ClusterStack)
    return disturbed_stack


@pytest.mark.parametrize("workload", ["message-store", "xmpp-bridge", "session-api", "nats", "postgres", "s3"])
async def test_messages_flow_on_while_pods_are_replaced(people: People, cluster: ClusterStack, workload: str) -> None:
    alice, bob = await people("alice", "bob")
    flow, receiver = Flow(alice, await alice.device(), bob), await bob.device()

    await flow.disturbed_by(lambda: cluster.roll(workload))

    await assert_all_kept(flow, alice, bob, receiver)


async def test_nothing_is_lost_while_the_xmpp_server_is_replaced(people: People, cluster: ClusterStack) -> None:
    alice, bob = await people("alice", "bob")
    flow, receiver = Flow(alice, await alice.device(), bob), await bob.device()

    await flow.disturbed_by(lambda: cluster.roll(cluster.xmpp_name))

    # In any order: a message that the server kept for Bob may come before those that it lost and gets again.
    await assert_all_delivered(flow, bob, alice, receiver)


@pytest.mark.parametrize("kill", [False, True], ids=["ended", "killed"])
async def test_people_on_two_nodes_talk_and_nothing_is_lost_with_a_node(
    people: People, cluster: ClusterStack, kill: bool
) -> None:
    nodes = list(cluster.xmpp_nodes())
    if len(nodes) < 2:
        pytest.skip("needs TLIM_E2E_XMPP_CLUSTER")
    alice, bob = await people("alice", "bob")
    flow, receivers = Flow(alice, await alice.device(), bob), [await bob.device()]
    while 0 in cluster.xmpp_nodes().values():  # the cluster chooses the node of each connection
        receivers.append(await bob.device())

    await flow.disturbed_by(*(partial(cluster.delete, node, kill=kill) for node in nodes))

    # What one device has had while another was away, that one gets from /v1/sync only (README, promise 3).
    stored = set(await assert_stored(flow, alice, bob))
    async for attempt in AsyncRetrying(stop=stop_after_delay(60), wait=wait_fixed(0.5), reraise=True):
        with attempt:
            assert {event.envelope.msg_id for one in receivers for event in one.inbox.all(Delivered)} == stored


async def test_nothing_is_started_again_while_postgresql_is_away_and_all_goes_on_after_it(
    people: People, cluster: ClusterStack
) -> None:
    alice, bob = await people("alice", "bob")
    flow = Flow(alice, await alice.device(), bob, patience=2 * AWAY_S)
    receiver = await bob.device()

    await flow.disturbed_by(lambda: cluster.be_without("postgres", AWAY_S))

    await assert_all_kept(flow, alice, bob, receiver)


class Requests:
    """People ask over HTTP again and again, each time on a new connection. One refusal fails the test."""

    def __init__(self, alice: Person, bob: Person, folder: Path) -> None:
        self._alice, self._bob, self._folder = alice, bob, folder
        self._is_over = False
        self._answered = 0
        self._progress = asyncio.Condition()

    async def disturbed_by(self, disturb: Callable[[], None]) -> None:
        """Ask before, during and after the disturbance, which may block."""
        async with asyncio.TaskGroup() as group:
            for number in range(ASKING):
                group.create_task(self._keep_asking(number))
            await self._more(CALM)
            await asyncio.to_thread(disturb)
            await self._more(CALM)
            self._is_over = True

    async def _more(self, count: int) -> None:
        goal = self._answered + count
        async with self._progress:
            await self._progress.wait_for(lambda: self._answered >= goal)

    async def _keep_asking(self, number: int) -> None:
        source, target = self._folder / f"{number}.txt", self._folder / f"{number}-back.txt"
        source.write_text(f"of {number}")
        token = (await self._alice.http()).token  # one for all: a person gets ten a minute
        while not self._is_over:
            async with HttpClient(self._alice.stack.addresses.gateway, token=token) as client:
                await client.call("GET", JWKS)
                await client.sessions()
                await client.history(self._bob.user_id)
                await client.download(await client.upload(source), target)
            assert target.read_text() == f"of {number}"
            async with self._progress:
                self._answered += 1
                self._progress.notify_all()


@pytest.mark.parametrize("workload", [GATEWAY, "session-api", "file-api", "message-store", "xmpp-bridge"])
async def test_every_request_is_answered_while_pods_are_replaced(
    people: People, cluster: ClusterStack, workload: str, tmp_path: Path
) -> None:
    alice, bob = await people("alice", "bob")

    await Requests(alice, bob, tmp_path).disturbed_by(lambda: cluster.roll(workload))


async def test_every_request_is_answered_while_a_node_is_drained(
    people: People, cluster: ClusterStack, tmp_path: Path
) -> None:
    alice, bob = await people("alice", "bob")

    await Requests(alice, bob, tmp_path).disturbed_by(lambda: cluster.evict([GATEWAY, *SERVICES]))


@pytest.mark.parametrize(
    ("target", "let_in", "cut"),
    [
        ("s3", "file-api", "session-api"),
        ("postgres", "session-api", "xmpp-bridge"),
        (("ejabberd", 5281), "session-api", "xmpp-bridge"),
        (("ejabberd", 5347), "xmpp-bridge", "message-store"),
    ],
)
def test_a_way_that_is_not_in_the_table_is_cut(
    stack: Stack, target: str | tuple[str, int], let_in: str, cut: str
) -> None:
    """Servers may be outside of the cluster: the overlay's addresses say where."""
    cluster = cast("ClusterStack", stack)
    host, port = cluster.server(target) if isinstance(target, str) else target

    reached = [
        cluster.supervisor.execute(source, "python3", "-c", CONNECT, host, str(port)).strip()
        for source in (let_in, cut)
    ]

    assert reached == ["reached", "cut"]


def test_the_doctor_finds_a_running_system_sound(stack: Stack) -> None:
    findings = json.loads(cast("ClusterStack", stack).operate("doctor", "--json"))

    wrong = {one["name"]: one for one in findings if one["state"] != "ok"}
    assert wrong.keys() <= {"gateway TLS"}, wrong  # a warning where the stories speak HTTP
    assert {"PostgreSQL locks message_store", "S3 public address", "NATS streams", "XMPP certificate"} <= {
        one["name"] for one in findings
    }


@pytest.mark.parametrize("overlay", ["local", "production"])
def test_the_api_server_takes_all_of_an_overlay(overlay: str, tmp_path: Path) -> None:
    """It judges what no schema says, such as a variable that is set twice. Nothing but a namespace is made."""

    def elsewhere(_overlay: Path, kustomization: dict[str, Any]) -> None:
        kustomization["namespace"] = DRY_RUN

    resources = rendered(overlay, tmp_path / "deploy", edit=elsewhere)
    (namespace,) = (one for one in resources if one["kind"] == "Namespace")
    apply = ("kubectl", "apply", "--server-side", "--filename=-")
    printed_by(*apply, stdin=yaml.safe_dump(namespace))
    try:
        taken = printed_by(*apply, "--dry-run=server", stdin=yaml.safe_dump_all(resources))
    finally:
        printed_by("kubectl", "delete", "namespace", DRY_RUN)

    assert len(taken.splitlines()) == len(resources)
