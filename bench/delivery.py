"""How fast messages come out, and whether anybody waits behind a neighbour: a whole system of its own, one run.

    scripts/bootstrap ejabberd prosody
    .venv/bin/python -m bench.delivery [--xmpp prosody]
    .venv/bin/python -m bench.delivery --group 10000 --readers 500 --renames 100

It prints one table, with the aim beside each figure. The aims are meant for the sizes of the last command. Limits per
person are lifted. `--rate` and `--repeats` give more samples.

During the whole run an unrelated pair of people writes at a steady rate. They have a process of their own. Their
latency counts from the moment at which a message is due. So it has the time for which the sender was held up.

All loads come from this process, on the machine of the system. Of what it writes to absent people, up to 100 messages
are on their way at a time. `the writing program` says how much of a core it used meanwhile. Near 100 % it was the limit
itself, and the ratio of the two rates says nothing.

At the end, with ejabberd, a second bridge joins, and one of the two is killed, in turn (`delivery_killed.py`).
"""

import argparse
import asyncio
import secrets
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tlim_client.compose import group_message, receipt, text_message
from tlim_client.http import HttpClient
from tlim_client.inbox import Stored
from tlim_client.xmpp import ServerAddress
from tlim_devstack.ports import Ports
from tlim_devstack.stack import Stack
from tlim_devstack.waiting import free_port
from tlim_protocol.registry import MsgType

from bench.delivery_devices import TEXT, Account, Device, Sample, running_pair
from bench.delivery_killed import PAIRS, SECOND, pauses, told
from bench.load import allow_many_sockets
from bench.systems import UNLIMITED

UNANSWERED = 100
"""How many messages a load sends ahead of their `stored`."""

AWAY = 10
"""One member of so many is present."""

RENAMED = 1_000
"""The most people in the group that is renamed."""

CROWD = 300
"""The most people in the group into which one person writes much at once. All of them are present."""

AT_ONCE = 8
"""Accounts that are made, and devices that log in, at a time."""

READING_S = 10.0
IDLE_S = 10.0
TAIL_S = 1.0
"""Belongs to each load. Receipts, for example, are gathered for up to a second."""

SETTLE_S = 3.0
"""Within this time the XMPP server has written to its files what it keeps."""

PAIR_AIM = "p99 < 250 ms"
IDLE = "idle"


class Sizes(NamedTuple):
    """How much is measured (the options of the command)."""

    backlog: int
    catch_up: int
    group: int
    readers: int
    renames: int
    burst: int
    repeats: int
    rate: float


class Row(NamedTuple):
    """A line of the report."""

    what: str
    reached: str
    aim: str = ""


@dataclass
class Cast:
    """Everybody with an account. `present` are the members of the group that log in; the first has made the group."""

    writer: Account
    pair: tuple[Account, Account]
    absent: Account
    newly_absent: list[Account]
    present: list[Account]
    pairs: list[Account]


@dataclass
class Run:
    """What is measured in one run: rows of the report, and the times of each load."""

    stack: Stack
    server: ServerAddress
    sizes: Sizes
    cast: Cast
    opened: AsyncExitStack
    rows: list[Row] = field(default_factory=list)
    loads: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    async def log_in(self, account: Account) -> Device:
        """Return a device that stays until the end of the run."""
        return await self.opened.enter_async_context(Device(self.server, account))

    @contextmanager
    def load(self, name: str) -> Iterator[None]:
        """Note the time of a load. Messages of the pair that are due in it count for it."""
        begun = time.monotonic()
        yield
        self.loads[name].append((begun, time.monotonic()))


# --- people -----------------------------------------------------------------------------------------------------------


async def make_accounts(stack: Stack, names: Sequence[str]) -> list[Account]:
    """Make people with accounts who are known to the directory."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def make(name: str) -> Account:
        user_id = f"{name}-{secrets.token_hex(4)}"
        async with slots:
            return Account(user_id, await asyncio.to_thread(stack.register_user, user_id))

    return list(await asyncio.gather(*map(make, names)))


async def make_known(admin: HttpClient, user_ids: Sequence[str]) -> None:
    """Enter people in the directory."""
    await admin.call("POST", "/v1/users", json={"users": [{"user_id": one, "name": one} for one in user_ids]})


async def make_cast(stack: Stack, admin: HttpClient, sizes: Sizes) -> Cast:
    """Make everybody who logs in."""
    single = await make_accounts(stack, ("writer", "one", "other", "absent"))
    newly_absent = await make_accounts(stack, [f"away{number}" for number in range(sizes.repeats)])
    present = await make_accounts(stack, [f"member{number}" for number in range(max(2, sizes.group // AWAY))])
    pairs = await make_accounts(stack, [f"paired{number}" for number in range(2 * PAIRS)])
    await make_known(admin, [one.user_id for one in (*single, *newly_absent, *present, *pairs)])
    return Cast(single[0], (single[1], single[2]), single[3], newly_absent, present, pairs)


# --- messages to absent people ----------------------------------------------------------------------------------------


async def write_many(writer: Device, to: Account, count: int) -> float:
    """Write to a person as fast as the messages are stored. Returns messages per second."""
    begun = time.perf_counter()
    for number in range(count + UNANSWERED):
        if number < count:
            writer.send(text_message(writer.user, to.user_id, TEXT + str(number)))
        if number >= UNANSWERED:
            await writer.expect(Stored, within=60)
    return count / (time.perf_counter() - begun)


def bytes_on_disk(stack: Stack) -> int:
    """Return the size of what the XMPP server keeps, without its logs."""
    files = (path for path in (stack.home / stack.xmpp_name).rglob("*") if path.is_file() and path.suffix != ".log")
    return sum(path.stat().st_blocks * 512 for path in files)


async def measure_absent(run: Run, writer: Device) -> None:
    """Write to absent people without and with a backlog, in turn; note the growth of the XMPP server's files."""
    sizes, absent = run.sizes, run.cast.absent
    before = bytes_on_disk(run.stack)
    most = sizes.backlog * 9 // 10
    with run.load(f"{most:,} messages to one absent person"):
        await write_many(writer, absent, most)
        await asyncio.sleep(TAIL_S)
    await write_many(writer, absent, sizes.backlog - most)
    await asyncio.sleep(SETTLE_S)
    grown = bytes_on_disk(run.stack) - before

    rates: dict[int, list[float]] = {0: [], sizes.backlog: []}
    begun, cpu = time.perf_counter(), time.process_time()
    for person in run.cast.newly_absent:
        rates[0].append(await write_many(writer, person, sizes.catch_up))
        rates[sizes.backlog].append(await write_many(writer, absent, sizes.catch_up))
    share = (time.process_time() - cpu) / (time.perf_counter() - begun)

    medians = {waiting: statistics.median(each) for waiting, each in rates.items()}
    for waiting, rate in medians.items():
        run.rows.append(Row(f"to an absent person, {waiting:,} waiting", f"{rate:,.0f} messages/s"))
    run.rows += (
        Row("ratio of these two", f"{medians[sizes.backlog] / medians[0]:.2f}", "0.90 to 1.10"),
        Row("the writing program", f"{share:.0%} of a core", "below 90 %"),
        Row("disk of the XMPP server, each message to the absent", f"{grown / sizes.backlog:,.1f} bytes", "0"),
    )


# --- what was missed --------------------------------------------------------------------------------------------------


async def catch_up(run: Run, person: Account) -> tuple[float, float]:
    """Log in. Returns the seconds from then to the first message, and to the mark behind the last one."""
    async with Device(run.server, person) as device:
        present_at = time.monotonic()
        await device.inbox.until(lambda: device.inbox.caught_up is not None)
        assert device.inbox.caught_up is not None
        return min(device.inbox.came.values()) - present_at, device.inbox.caught_up - present_at


async def measure_catch_ups(run: Run) -> None:
    """Let those log in who have missed little, one after the other, and then the one who has missed most."""
    sizes = run.sizes
    taken = [await catch_up(run, person) for person in run.cast.newly_absent]
    first, whole = (statistics.median(each) for each in zip(*taken, strict=True))
    name = f"catch-up of {sizes.catch_up:,}"
    run.rows += (
        Row(f"{name}: first message after login", f"{first * 1000:,.0f} ms", "< 300 ms"),
        Row(f"{name}: all of it", f"{whole:.2f} s", "< 2 s"),
    )
    with run.load(f"catch-up of {sizes.backlog:,}"):
        await catch_up(run, run.cast.absent)
        await asyncio.sleep(TAIL_S)


# --- groups -----------------------------------------------------------------------------------------------------------


async def measure_groups(run: Run, admin: HttpClient) -> None:
    """Make two groups, let the present members log in, and disturb the pair with messages, receipts and renames."""
    present, sizes = run.cast.present, run.sizes
    away = [f"away-member-{number}" for number in range(sizes.group - len(present))]
    await make_known(admin, away)
    http = await run.opened.enter_async_context(HttpClient(run.stack.addresses.gateway, timeout=60))
    await http.log_in(*present[0])
    ids = [one.user_id for one in present]
    large = (await http.add_session([*ids, *away]))["session_id"]
    size = min(RENAMED, sizes.group)
    among = ids[: max(2, size // AWAY)]
    renamed = (await http.add_session([*among, *away[: size - len(among)]]))["session_id"]
    crowd = (await http.add_session(ids[:CROWD]))["session_id"]

    slots = asyncio.Semaphore(AT_ONCE)

    async def log_in(account: Account) -> Device:
        async with slots:
            device = await run.log_in(account)
            await device.inbox.until(lambda: device.inbox.caught_up is not None)
            return device

    devices = await asyncio.gather(*map(log_in, present))
    await load_messages(run, devices, large)
    await load_burst(run, devices[:CROWD], crowd)
    await load_receipts(run, devices, large)
    await load_renames(run, devices[: len(among)], http, renamed, size)


async def load_messages(run: Run, members: Sequence[Device], session_id: str) -> None:
    """Write into the group, and wait until all present members have it."""
    author, *others = members
    for number in range(run.sizes.repeats):
        message = group_message(author.user, session_id, MsgType.TEXT, {"text": TEXT + str(number)})
        with run.load(f"a message to {run.sizes.group:,} members, {len(members):,} of them present"):
            await author.send_until_stored(message)
            for other in others:
                await other.inbox.until_came(message.msg_id)
            await asyncio.sleep(TAIL_S)


async def load_burst(run: Run, members: Sequence[Device], session_id: str) -> None:
    """Write many messages into the group at once, and wait until all members have them."""
    author, *others = members
    messages = [
        group_message(author.user, session_id, MsgType.TEXT, {"text": TEXT + str(number)})
        for number in range(run.sizes.burst)
    ]
    with run.load(f"{len(messages):,} messages at once to a group of {len(members):,}, all present"):
        for message in messages:
            author.send(message)
        for other in others:
            await other.inbox.until_came(messages[-1].msg_id)
        await asyncio.sleep(TAIL_S)


async def load_receipts(run: Run, members: Sequence[Device], session_id: str) -> None:
    """Let members read one message, evenly within ten seconds."""
    author, *readers = members[: run.sizes.readers + 1]
    message = group_message(author.user, session_id, MsgType.TEXT, {"text": "everybody reads this"})
    await author.send_until_stored(message)

    async def read(reader: Device, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await reader.send_until_stored(receipt(reader.user, message, MsgType.READ))

    with run.load(f"{len(readers):,} members read one message within 10 s"):
        pauses = (READING_S * number / len(readers) for number in range(len(readers)))
        await asyncio.gather(*map(read, readers, pauses))
        await asyncio.sleep(TAIL_S)


async def load_renames(run: Run, members: Sequence[Device], http: HttpClient, session_id: str, size: int) -> None:
    """Rename the group, one change behind the other, and wait until all present members have heard of each."""
    with run.load(f"{run.sizes.renames:,} renames of a group of {size:,}"):
        for number in range(run.sizes.renames):
            await http.change_session(session_id, session_name=f"name {number}")
        for member in members:
            await member.inbox.until_counted(MsgType.SESSION_CHANGED, run.sizes.renames)
        await asyncio.sleep(TAIL_S)


# --- the run and its report -------------------------------------------------------------------------------------------


def pair_row(load: str, spans: Sequence[tuple[float, float]], samples: Sequence[Sample]) -> Row:
    """Return the pair's latency during a load."""
    took = [one.took * 1000 for one in samples if any(begun <= one.due <= ended for begun, ended in spans)]
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    seconds = sum(ended - begun for begun, ended in spans)
    reached = f"p50 {cuts[49]:,.0f} ms, p99 {cuts[98]:,.0f} ms ({len(took):,} in {seconds:.1f} s)"
    return Row(f"  {load}", reached, "" if load == IDLE else PAIR_AIM)


async def measure(stack: Stack, sizes: Sizes) -> list[Row]:
    """Return the rows of the report."""
    at = stack.addresses
    server = ServerAddress(at.xmpp_host, at.xmpp_port, at.domain, at.ca_file)
    async with AsyncExitStack() as opened:
        admin = await opened.enter_async_context(HttpClient(at.gateway, token=stack.admin_token(), timeout=60))
        run = Run(stack, server, sizes, await make_cast(stack, admin, sizes), opened)
        writer = await run.log_in(run.cast.writer)
        pair = await opened.enter_async_context(running_pair(server, *run.cast.pair, sizes.rate))
        with run.load(IDLE):
            await asyncio.sleep(IDLE_S)
        await measure_absent(run, writer)
        await measure_catch_ups(run)
        await measure_groups(run, admin)
        samples = await pair.stop()
    longest = await pauses(stack, server, run.cast.pairs, sizes.repeats)
    run.rows.append(Row("a bridge is killed under load: pause of its conversations", told(longest), "< 3 s"))
    heading = Row("an unrelated pair during", "")
    return [*run.rows, heading, *(pair_row(load, spans, samples) for load, spans in run.loads.items())]


def main() -> None:
    """Read the command line, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--xmpp", choices=("ejabberd", "prosody"), default="ejabberd")
    parser.add_argument("--backlog", type=int, default=10_000, help="messages that wait for one absent person")
    parser.add_argument("--catch-up", type=int, default=1_000, help="messages that wait for each of some others")
    parser.add_argument("--group", type=int, default=1_000, help="members of the group; a tenth of them is present")
    parser.add_argument("--readers", type=int, default=100, help="present members that read a message")
    parser.add_argument("--renames", type=int, default=20)
    parser.add_argument("--burst", type=int, default=100, help="messages that are written into a group at once")
    parser.add_argument("--repeats", type=int, default=3, help="how often what takes little time is measured")
    parser.add_argument("--rate", type=float, default=20.0, help="messages a second of the pair")
    options = vars(parser.parse_args())
    xmpp = options.pop("xmpp")
    with tempfile.TemporaryDirectory() as home:
        stack = Stack(Path(home), Ports.random(), xmpp, environment=UNLIMITED, further={SECOND: free_port()})
        stack.start()  # before this process takes more: servers begin with the limits of a shell
        allow_many_sockets()
        try:
            rows = asyncio.run(measure(stack, Sizes(**options)))
        finally:
            stack.stop()
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in (Row(f"on {xmpp}", "reached", "aim"), *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
