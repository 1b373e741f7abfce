"""What a running stack keeps from other users of the machine, from other machines, and from its own parts."""

import os
import stat
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
import pytest
from tlim_devstack.privileges import PARTS, user_of
from tlim_devstack.services import SERVICES
from tlim_devstack.stack import Stack

pytestmark = pytest.mark.parametrize("stack", ["ejabberd", "prosody"], indirect=True, scope="module")
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="there are no privileges to give up")

LOOPBACK = {"127.0.0.1", "::1"}
REMAIN_ROOT = {"tlim_devstack.process_runner", "tlim_devstack.keeper"}  # they start the parts and listen nowhere

OfEach = Callable[[Callable[[psutil.Process], Any]], list[Any]]


def test_only_this_machine_can_reach_it(of_each: OfEach) -> None:
    connections = chain.from_iterable(of_each(lambda process: process.net_connections("inet")))
    listening = {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}
    assert listening
    assert listening <= LOOPBACK


def test_no_secret_stands_in_a_command_line(stack: Stack, of_each: OfEach) -> None:
    credentials = stack.credentials
    hidden = {*credentials.nats.values(), *credentials.postgres_roles.values(), *credentials.s3_admin}
    hidden |= {*credentials.s3_file_api, credentials.component, credentials.nats_monitor, credentials.postgres_admin}
    shown = " ".join(chain.from_iterable(of_each(lambda process: process.cmdline())))
    assert not [secret for secret in hidden if secret in shown]


def test_what_the_stack_keeps_is_closed_to_others_and_stays_so(stack: Stack, of_each: OfEach) -> None:
    assert stat.S_IMODE(stack.home.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
    assert [path.name for path in stack.home.iterdir() if path.stat().st_mode & 0o077] == []
    statuses = of_each(lambda process: Path(f"/proc/{process.pid}/status").read_text())
    alive = [status for status in statuses if "Umask:" in status]
    assert {status.partition("Umask:")[2].split()[0] for status in alive} == {"0077"}


@only_root
def test_only_what_starts_the_parts_runs_as_root(of_each: OfEach) -> None:
    seen = of_each(lambda process: ({*process.uids(), *process.gids()}, process.cmdline()))
    assert {command[2] for ids, command in seen if 0 in ids} == REMAIN_ROOT


@only_root
def test_every_part_has_a_user_and_a_directory_of_its_own(stack: Stack, of_each: OfEach) -> None:
    parts = [name for name in stack.supervisor.states() if name in PARTS]
    assert {name: psutil.Process(stack.supervisor.pid(name)).uids().effective for name in parts} == {
        name: user_of(name) for name in parts
    }
    assert {name: (stack.home / name).stat().st_uid for name in parts} == {name: user_of(name) for name in parts}
    assert set(of_each(lambda process: process.uids().effective)) == {0, *map(user_of, parts)}


@only_root
def test_parts_keep_no_capability_where_others_can_pass_through(stack: Stack) -> None:
    for name in set(stack.supervisor.states()).intersection(PARTS) - set(SERVICES):
        process = psutil.Process(stack.supervisor.pid(name))
        on_the_way = (*stack.home.resolve().parents, *Path(process.exe()).parents, *Path(__file__).parents)
        closed = [str(path) for path in on_the_way if not path.stat().st_mode & 0o001]
        if closed:
            pytest.skip(f"other users cannot pass through {closed[0]}, and then parts keep a capability")
        assert Path(f"/proc/{process.pid}/status").read_text().partition("CapEff:")[2].split()[0] == "0" * 16
