"""A port that cannot be used is one sentence that says which, what for, and how to change it."""

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tlim_devstack.failures import StackError
from tlim_devstack.ports import Ports
from tlim_devstack.waiting import FIRST_FOR_CONNECTIONS, free_port


def test_a_taken_port_is_named_with_its_purpose_and_variable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        port = squatter.getsockname()[1]
        ports = Ports.from_environment({"TLIM_PORT_GATEWAY": str(port)})
        with pytest.raises(StackError) as failure:
            ports.check_free()
    expected = f"port {port} (HTTP gateway) is taken: free it, or set TLIM_PORT_GATEWAY to another port"
    assert str(failure.value) == expected


def test_two_parts_on_one_port_are_refused() -> None:
    port = free_port()
    ports = replace(Ports.random(), gateway=port, xmpp=port)  # the default ports may be those of a running stack
    with pytest.raises(StackError, match="TLIM_PORT_XMPP and TLIM_PORT_GATEWAY are both"):
        ports.check_free()


@pytest.mark.parametrize("text", ["http", "0", "65536", "-1", "９０９０"])
def test_what_is_not_a_port_is_refused(text: str) -> None:
    with pytest.raises(StackError, match=r"TLIM_PORT_NATS is .* it must be a port number"):
        Ports.from_environment({"TLIM_PORT_NATS": text})


def test_an_unset_variable_leaves_the_default() -> None:
    assert Ports.from_environment({"TLIM_PORT_NATS": ""}).nats == Ports.nats


def test_random_ports_are_all_different() -> None:
    ports = Ports.random()
    chosen = list(vars(ports).values())
    assert len(set(chosen)) == len(chosen)


def test_random_ports_are_none_that_the_system_gives_to_connections() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if lowest < FIRST_FOR_CONNECTIONS:
        pytest.skip(f"this system gives ports from {lowest} on to connections")
    assert max(vars(Ports.random()).values()) < lowest


def test_a_port_that_was_given_to_one_process_is_not_given_to_another() -> None:
    """Nobody listens on it yet. Two runs of tests beside each other have met that."""
    first, second = free_port(), free_port()
    script = f"""
from itertools import cycle
from tlim_devstack import waiting
waiting._CANDIDATES = cycle([{first}, {second}, 20000, 20001, 20002, 20003])
print(waiting.free_port())
"""
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(other.stdout) not in {first, second}
