"""In containers and in a cluster: who renews the certificate writes a file, and disturbs nobody."""

from functools import partial

import pytest
from cryptography.x509 import load_pem_x509_certificate
from tlim_admin.certificates import new_pair
from tlim_devstack.stack import Stack
from tlim_devstack.waiting import wait_until
from tlim_devstack.xmpp_servers import DOMAIN
from tlim_devstack.xmpp_tls import serials

from tests.e2e.clients.cluster import ClusterStack
from tests.e2e.clients.containers import ComposeStack
from tests.e2e.clients.flow import Flow, assert_all_kept
from tests.e2e.clients.people import People
from tests.e2e.conftest import IN_CONTAINERS

pytestmark = pytest.mark.skipif(
    not IN_CONTAINERS, reason="needs containers; test_ejabberd.py is the test with processes"
)

SERVED_S = 180
"""Compose shows a new file at once. A cluster shows it to its pods after a minute or two."""


ASKED = 8
"""So many times in a row both ports serve it: a cluster leads each connection to any node, and one may be late."""


async def test_a_renewed_certificate_is_served_without_a_restart(people: People, disturbed_stack: Stack) -> None:
    assert isinstance(disturbed_stack, ComposeStack | ClusterStack)
    stack, ports = disturbed_stack, disturbed_stack.ports
    alice, bob = await people("alice", "bob")
    flow, receiver = Flow(alice, await alice.device(), bob), await bob.device()
    process = stack.supervisor.pid(stack.xmpp_name)

    def renew(certificate: str) -> None:
        stack.renew_certificate(certificate)
        number = load_pem_x509_certificate(certificate.encode()).serial_number
        doors = partial(serials, stack.addresses.xmpp_host, ports.xmpp, ports.websocket)
        served = [number, number]
        wait_until(lambda: all(doors() == served for _ in range(ASKED)), "the renewed certificate", SERVED_S)

    before = stack.certificate()
    try:
        await flow.disturbed_by(partial(renew, new_pair(DOMAIN)[1]), partial(renew, before))
    finally:  # the file is the deployment's, and its authority cannot sign another one
        stack.renew_certificate(before)

    assert stack.supervisor.pid(stack.xmpp_name) == process
    await assert_all_kept(flow, alice, bob, receiver)
