"""What a running stack keeps from other users of the machine, from other machines, and from its own parts."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tlim_devstack.privileges import PARTS, user_of
from tlim_devstack.services import SERVICES
from tlim_devstack.stack import Stack

pytestmark = pytest.mark.parametrize("stack", ["ejabberd", "prosody"], indirect=True, scope="module")
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="there are no privileges to give up")

LOOPBACK = {"127.0.0.1", "::1"}
REMAIN_ROOT = {"tlim_devstack.process_runner", "tlim_devstack.keeper"}  # they start the parts and listen nowhere

Processes = Callable[[], list[psutil.Process]]


def test_only_this_machine_can_reach_it(processes: Processes) -> None:
    listening = {
        connection.laddr.ip
        for process in processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening
    assert listening <= LOOPBACK


def test_no_secret_stands_in_a_command_line(stack: Stack, processes: Processes) -> None:
    credentials = stack.credentials
    hidden = {*credentials.nats.values(), *credentials.postgres_roles.values(), *credentials.s3_admin}
    hidden |= {*credentials.s3_file_api, credentials.component, credentials.nats_monitor, credentials.postgres_admin}
    shown = " ".join(word for process in processes() for word in process.cmdline())
    assert not [secret for secret in hidden if secret in shown]


def test_what_the_stack_keeps_is_closed_to_others_and_stays_so(stack: Stack, processes: Processes) -> None:
    assert stat.S_IMODE(stack.home.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
    assert [path.name for path in stack.home.iterdir() if path.stat().st_mode & 0o077] == []
    statuses = [Path(f"/proc/{process.pid}/status").read_text() for process in processes()]
    assert {status.partition("Umask:")[2].split()[0] for status in statuses} == {"0077"}


@only_root
def test_only_what_starts_the_parts_runs_as_root(processes: Processes) -> None:
    roots = [process for process in processes() if 0 in {*process.uids(), *process.gids()}]
    assert {process.cmdline()[2] for process in roots} == REMAIN_ROOT


@only_root
def test_every_part_has_a_user_and_a_directory_of_its_own(stack: Stack, processes: Processes) -> None:
    parts = [name for name in stack.supervisor.states() if name in PARTS]
    assert {name: psutil.Process(stack.supervisor.pid(name)).uids().effective for name in parts} == {
        name: user_of(name) for name in parts
    }
    assert {name: (stack.home / name).stat().st_uid for name in parts} == {name: user_of(name) for name in parts}
    assert {process.uids().effective for process in processes()} == {0, *map(user_of, parts)}


@only_root
def test_parts_keep_no_capability_where_others_can_pass_through(stack: Stack) -> None:
    for name in set(stack.supervisor.states()).intersection(PARTS) - set(SERVICES):
        process = psutil.Process(stack.supervisor.pid(name))
        on_the_way = (*stack.home.resolve().parents, *Path(process.exe()).parents, *Path(__file__).parents)
        closed = [str(path) for path in on_the_way if not path.stat().st_mode & 0o001]
        if closed:
            pytest.skip(f"other users cannot pass through {closed[0]}, and then parts keep a capability")
        assert Path(f"/proc/{process.pid}/status").read_text().partition("CapEff:")[2].split()[0] == "0" * 16
