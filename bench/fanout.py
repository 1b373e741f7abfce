"""Messages to groups: deliveries a second, and when the last member has a message.

All members of the groups are present, up to 1,000 of them. The writer has four messages on their way at a time. `last
member` is measured at one message a second. Meanwhile two people that have nothing to do with the group write to each
other at 20 messages a second. The rooms store their messages with mod_mam, too. In MUC every member has entered the
room; in MUC/Sub every member has subscribed to it. ejabberd does not tell the members of a room of each other here.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tlim_client.http import HttpClient
from tlim_devstack.stack import Stack

from bench.comparing import Bars, Effort, Figure, Section, interleaved, percentile, prose, table
from bench.lanes import Room, RoomKind
from bench.load import Flood, LoadGenerator, Steady
from bench.one_to_one import REFERENCE
from bench.stream import Account
from bench.systems import MUC, OrdinaryEjabberd, System, running_other, running_stack, tlim

SIZES = (10, 100, 1_000)
LARGEST = 10_000
"""Only tlim has a group of this size here: the others need an account and a login for each member."""

ROOMS = (RoomKind.MUC, RoomKind.MUC_SUB)
WINDOW = 4
ALONE_RATE, PAIR_RATE = 1.0, 20.0


class Group(NamedTuple):
    """A group whose members are logged in, its present members, and a pair of people beside it."""

    members: LoadGenerator
    present: int
    pair: LoadGenerator


class Times(NamedTuple):
    """Deliveries a second; in ms, when the last member had a message, and the latencies of the pair meanwhile."""

    deliveries: float
    last: Sequence[float]
    pair: Sequence[float]


Found = dict[str, dict[str, list[Times]]]


def measure(effort: Effort, home: Path) -> Section:
    """Measure each size of groups with each kind of them in turn."""
    is_short = effort.seconds < 5  # then it is only a proof that the bench runs
    with ExitStack() as opened:
        stack = opened.enter_context(running_stack(home / "tlim"))
        other = opened.enter_context(running_other(REFERENCE, OrdinaryEjabberd, home / "other", stack, archive=True))
        own = tlim(stack)
        pair, others = (opened.enter_context(LoadGenerator(one.target, one.people(2))) for one in (own, other))
        found: Found = {}
        for size in SIZES[:1] if is_short else SIZES:
            with ExitStack() as logged_in:
                session = logged_in.enter_context(_session(stack, own, size))
                muc, sub = (logged_in.enter_context(_room(other, kind, size)) for kind in ROOMS)
                groups = {
                    RoomKind.SESSION: Group(session, size, pair),
                    RoomKind.MUC: Group(muc, size, others),
                    RoomKind.MUC_SUB: Group(sub, size, others),
                }
                found[f"{size:,}"] = _compare(groups, effort)
        if not is_short:
            with _session(stack, own, SIZES[-1], LARGEST - SIZES[-1]) as large:
                groups = {RoomKind.SESSION: Group(large, SIZES[-1], pair)}
                found[f"{LARGEST:,}, {SIZES[-1]:,} of them present"] = _compare(groups, effort)
    return Section("Groups", f"{prose(__doc__)}\n\n{_table(found)}", _plot(found))


def _session(stack: Stack, own: System, present: int, absent: int = 0) -> LoadGenerator:
    members = own.people(present)
    away = [f"away{number}-{secrets.token_hex(4)}" for number in range(absent)]
    session_id = asyncio.run(add_session(stack, members, away))
    return LoadGenerator(own.target, members, Room(RoomKind.SESSION, session_id))


async def add_session(stack: Stack, members: Sequence[Account], away: Sequence[str] = ()) -> str:
    """Add a group of people; return its session_id."""
    gateway = stack.addresses.gateway
    async with HttpClient(gateway, token=stack.admin_token(), timeout=60) as admin, HttpClient(gateway) as http:
        if away:
            await admin.call("POST", "/v1/users", json={"users": [{"user_id": one, "name": one} for one in away]})
        await http.log_in(*members[0])
        added = await http.add_session([*(one.user_id for one in members), *away])
    return str(added["session_id"])


def _room(other: System, kind: RoomKind, size: int) -> LoadGenerator:
    return LoadGenerator(other.target, other.people(size), Room(kind, f"r{secrets.token_hex(4)}@{MUC}"))


def _compare(groups: Mapping[RoomKind, Group], effort: Effort) -> dict[str, list[Times]]:
    return interleaved(effort.repeats, {kind.value: partial(_run, one, effort) for kind, one in groups.items()})


def _run(group: Group, effort: Effort) -> Times:
    last = group.members.run(Steady(ALONE_RATE, effort.seconds)).latencies
    with ThreadPoolExecutor(1) as beside:
        pair = beside.submit(group.pair.run, Steady(PAIR_RATE, effort.seconds))
        rate = group.members.run(Flood(WINDOW, effort.seconds)).rate
        disturbed = pair.result().latencies
    return Times(rate * (group.present - 1), [one * 1000 for one in last], [one * 1000 for one in disturbed])


# --- what is told -----------------------------------------------------------------------------------------------------


def _table(found: Found) -> str:
    rows = []
    for size, kinds in found.items():
        for kind, runs in kinds.items():
            figures = (
                Figure.of(run.deliveries for run in runs).told(),
                Figure.of(percentile(run.last, 50) for run in runs).told(1),
                Figure.of(percentile(run.pair, 50) for run in runs).told(1),
                Figure.of(percentile(run.pair, 99) for run in runs).told(1),
            )
            rows.append((size, kind, *figures))
    return table(("members", "kind", "deliveries/s", "last member, p50, ms", "the pair: p50, ms", "p99, ms"), rows)


def _plot(found: Found) -> Bars:
    figures = {
        f"{size}: {kind}": Figure.of(run.deliveries for run in runs)
        for size, kinds in found.items()
        for kind, runs in kinds.items()
    }
    return Bars.of("deliveries/s", figures)
