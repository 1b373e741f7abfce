"""Bridges share the deliveries: whatever becomes of one of them, everybody gets everything, in order."""

import asyncio
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio
from tlim_client.inbox import Delivered
from tlim_devstack.plain_http import NO_TLS
from tlim_devstack.processes import ServerProcess
from tlim_devstack.severable import Severable
from tlim_devstack.waiting import free_port
from tlim_protocol.events import AcceptedMessage, StoredMessage
from tlim_protocol.identity import DELIVERY_SHARDS, delivery_shard
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import Rpc
from xmpp_bridge.system_service import AdminCaller, Draft

BOBS = delivery_shard("bob")
MOST_ON_THE_WAY = 300
LEASE_LOST = "the lease of shard"
"""A bridge says this if it got no turn on this machine for so long that it did not renew a lease in time."""
_OWNED = re.compile(r'tlim_bridge_shards\{shard="(\d)"\} 1\.0')


def owned(metrics: str) -> set[int]:
    """Return the shards that a bridge has, by what it says of itself."""
    return {int(shard) for shard in _OWNED.findall(metrics)}


class BridgeProcess:
    """A bridge in a process of its own, that a test may kill and pause."""

    def __init__(self, world: Any, home: Path, number: int, **changes: Any) -> None:
        settings, port = world.settings(**changes), free_port()
        variables = {
            "PORT": port,
            "JWKS_URL": settings.jwks_url,
            "NATS_URL": settings.nats_url,
            "NATS_USER": settings.nats_user,
            "NATS_PASSWORD": settings.nats_password.get_secret_value(),
            "XMPP_COMPONENT_PORT": settings.xmpp_component_port,
            "XMPP_CLIENT_PORT": settings.xmpp_client_port,
            "XMPP_CA_FILE": settings.xmpp_ca_file,
            "COMPONENT_JID": settings.component_jid,
            "COMPONENT_SECRET": settings.component_secret.get_secret_value(),
            "TOKEN_KEY_FILE": settings.token_key_file,
        }
        environment = {f"TLIM_{name}": str(value) for name, value in variables.items()}
        command = [sys.executable, "-m", "xmpp_bridge"]
        self._log = home / f"bridge{number}.log"
        self._process = ServerProcess("bridge", command, self._log, environment)
        self._url = f"http://127.0.0.1:{port}"

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal. When this returns, a bridge that shall pause does nothing more."""
        self._process.process.send_signal(number)
        if number is signal.SIGSTOP:
            os.waitid(os.P_PID, self._process.process.pid, os.WSTOPPED)

    @property
    def log(self) -> str:
        """What it said."""
        return self._log.read_text()

    async def stop(self) -> None:
        """Stop it in order."""
        await asyncio.to_thread(self._process.stop, signal.SIGTERM, 60)  # it may have much to finish

    def end(self) -> None:
        self._process.stop(signal.SIGKILL)

    async def shards(self) -> set[int]:
        """Return its shards, if it is ready."""
        try:
            async with httpx.AsyncClient(base_url=self._url, verify=NO_TLS) as http:
                assert (await http.get("/readyz")).status_code == 200, "not ready"
                return owned((await http.get("/metrics")).text)
        except httpx.HTTPError as error:
            raise AssertionError("no answer") from error


class Bridges:
    """The bridges of a test, and bob, who gets one message after the other."""

    def __init__(self, world: Any, home: Path, stack: AsyncExitStack, stored: Any, eventually: Any) -> None:
        self.world = world
        self._home = home
        self._stack = stack
        self._stored = stored
        self._eventually = eventually
        self._started = 0
        self.published = 0
        self.bob: Any = None

    async def process(self, **changes: Any) -> BridgeProcess:
        self._started += 1
        bridge = BridgeProcess(self.world, self._home, self._started, **changes)
        self._stack.callback(bridge.end)
        return bridge

    async def divided(self, *bridges: BridgeProcess) -> None:
        """Wait until these have all shards in fair shares."""

        async def so() -> None:
            shares = [await bridge.shards() for bridge in bridges]
            assert sorted(shard for share in shares for shard in share) == list(range(DELIVERY_SHARDS))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1

        await self._eventually(so, within_s=60)

    async def of_bob(self, *bridges: BridgeProcess) -> tuple[BridgeProcess, list[BridgeProcess]]:
        """Return the bridge that delivers to bob, and the others. While a lease is lapsed, there is none."""
        found: list[BridgeProcess] = []

        async def is_known() -> None:
            found[:] = [bridge for bridge in bridges if BOBS in await bridge.shards()]
            assert len(found) == 1

        await self._eventually(is_known)
        return found[0], [bridge for bridge in bridges if bridge is not found[0]]

    async def publish(self, count: int) -> None:
        numbers = range(self.published, self.published + count)
        self.published += count
        await self.world.publish(*(self._stored(number) for number in numbers))

    async def keeps_up(self) -> None:
        """Wait until bob lacks no more than so many that the slow lane has room."""

        async def so() -> None:
            assert self.published - len(self.got) < MOST_ON_THE_WAY

        await self._eventually(so)

    @property
    def got(self) -> list[int]:
        """What bob has got, in this order."""
        return [delivered.seq - 100 for delivered in self.bob.inbox.all(Delivered)]

    def check_nothing_is_repeated(self, *bridges: BridgeProcess) -> None:
        """Check that bob has got everything once, unless the machine was too busy for a bridge to keep its leases."""
        repeated = [number for number, times in Counter(self.got).items() if times > 1]
        logs = "".join(bridge.log for bridge in bridges)
        assert not repeated or LEASE_LOST in logs, f"{len(repeated)} from {repeated[0]} on\n{logs}"

    async def all_arrived(self) -> None:
        """Wait until bob has everything. In the order in which he got each for the first time it is the log's."""

        async def so() -> None:
            assert list(dict.fromkeys(self.got)) == list(range(self.published))

        await self._eventually(so, within_s=60)

    async def comes(self) -> None:
        self.bob = await self.world.login("bob")
        await self._eventually(lambda: self.world.mailboxes.is_live("bob"))


@pytest_asyncio.fixture
async def bridges(world: Any, tmp_path: Path, stored: Any, eventually: Any) -> AsyncIterator[Bridges]:
    async with AsyncExitStack() as stack:
        yield Bridges(world, tmp_path, stack, stored, eventually)


async def test_what_a_killed_bridge_was_delivering_another_one_delivers(bridges: Bridges) -> None:
    three = [await bridges.process() for _ in range(3)]
    await bridges.divided(*three)
    await bridges.comes()
    his, others = await bridges.of_bob(*three)
    await bridges.publish(600)
    his.signal(signal.SIGKILL)
    await bridges.publish(200)
    await bridges.all_arrived()
    await bridges.divided(*others)


async def test_a_bridge_that_was_paused_delivers_nothing_when_it_wakes_up(bridges: Bridges, eventually: Any) -> None:
    two = [await bridges.process() for _ in range(2)]
    await bridges.divided(*two)
    await bridges.comes()
    his, others = await bridges.of_bob(*two)
    await bridges.publish(100)
    his.signal(signal.SIGSTOP)
    await bridges.publish(300)
    await bridges.all_arrived()
    await bridges.divided(*others)
    await eventually(bridges.world.all_acknowledged)
    had = len(bridges.got)
    his.signal(signal.SIGCONT)
    await bridges.divided(his, *others)
    await bridges.publish(100)
    await bridges.all_arrived()
    await eventually(bridges.world.all_acknowledged)
    assert list(dict.fromkeys(bridges.got[had:])) == list(range(400, 500))


async def test_a_bridge_that_joins_gets_its_share_and_nothing_is_lost_or_repeated(bridges: Bridges) -> None:
    first = await bridges.process()
    await bridges.divided(first)
    await bridges.comes()
    joined = [await bridges.process() for _ in range(2)]
    is_divided = asyncio.ensure_future(bridges.divided(first, *joined))
    while not is_divided.done():
        await bridges.publish(20)
        await bridges.keeps_up()
    await is_divided
    await bridges.all_arrived()
    bridges.check_nothing_is_repeated(first, *joined)


async def test_a_bridge_that_is_stopped_gives_its_share_away_and_nothing_is_repeated(bridges: Bridges) -> None:
    two = [await bridges.process() for _ in range(2)]
    await bridges.divided(*two)
    await bridges.comes()
    his, others = await bridges.of_bob(*two)
    await bridges.publish(300)
    stopping = asyncio.ensure_future(his.stop())
    await bridges.publish(300)
    await stopping
    await bridges.divided(*others)
    await bridges.all_arrived()
    bridges.check_nothing_is_repeated(*two)


async def test_a_bridge_that_is_cut_off_from_nats_leaves_its_share_to_the_others(
    world: Any, bridges: Bridges, eventually: Any
) -> None:
    async with Severable(world.nats.url) as link, world.ready_bridge(nats_url=link.url) as cut:
        await bridges.comes()  # this bridge has all shards
        other = await bridges.process()
        await bridges.publish(50)
        await link.cut()
        await bridges.publish(50)
        await bridges.all_arrived()
        await bridges.divided(other)

        async def is_red() -> None:
            assert (await cut.http.get("/readyz")).status_code == 503

        await eventually(is_red)
        await eventually(world.all_acknowledged)
        had = len(bridges.got)
        await link.mend()
        await eventually(cut.is_ready)
        await bridges.publish(50)
        await bridges.all_arrived()
        assert list(dict.fromkeys(bridges.got[had:])) == list(range(100, 150))


async def test_what_a_bridge_had_not_read_before_it_was_given_up_is_not_stored_behind_newer_messages(
    world: Any, bridges: Bridges, envelope: Any, eventually: Any
) -> None:
    async with Severable(f"tcp://127.0.0.1:{world.settings().xmpp_component_port}") as link:
        hangs = await bridges.process(xmpp_component_port=link.port)
        await bridges.divided(hangs)
        alice = await world.login("alice")

        async def are_accepted(*msg_ids: str) -> None:
            assert {message.envelope.msg_id for message in await world.accepted()} == set(msg_ids)

        alice.send(envelope("m1"))
        await eventually(partial(are_accepted, "m1"))
        other = await bridges.process()
        await bridges.divided(hangs, other)
        hangs.signal(signal.SIGSTOP)
        carried = link.carried
        alice.send(envelope("m2"))

        async def is_in_the_socket() -> None:
            assert link.carried > carried

        await eventually(is_in_the_socket)
        await link.cut()

        async def goes_on() -> None:
            alice.send(envelope("m3"))
            await are_accepted("m1", "m3")

        await eventually(goes_on)
        await bridges.divided(other)  # by then it has hung for seconds
        hangs.signal(signal.SIGCONT)
        await link.mend()
        await bridges.divided(hangs, other)
        await are_accepted("m1", "m3")


async def test_an_http_request_is_answered_by_the_bridge_that_took_it_whichever_has_the_senders_shard(
    world: Any, eventually: Any
) -> None:
    async def noted(_data: bytes) -> bytes:
        return b"{}"

    await world.broker.respond(Rpc.AUDIT_NOTE, noted, "audit")
    patient = partial(world.ready_bridge, system_send_timeout=30)
    async with patient() as one, patient() as other:

        async def shares(bridge: Any) -> set[int]:
            return owned((await bridge.http.get("/metrics")).text)

        async def are_divided() -> None:
            assert (len(await shares(one)), len(await shares(other))) == (4, 4)

        await eventually(are_divided, within_s=60)
        for bridge in (one, other):
            sent = asyncio.ensure_future(_send(bridge))
            answer = await _decided(world, eventually)
            await world.publish(answer)
            assert (await sent).seq == answer.seq


async def _send(bridge: Any) -> StoredMessage:
    draft = Draft("system", "bob", None, MsgType.TEXT, [{"text": "hello"}], None)
    stored: StoredMessage = await bridge.app.state.system_sender.send(AdminCaller("admin", "request"), draft)
    return stored


async def _decided(world: Any, eventually: Callable[..., Awaitable[None]]) -> StoredMessage:
    """Wait for a message, and return what the store says of it."""
    count = len(world.mailboxes.log)
    found: list[AcceptedMessage] = []

    async def is_published() -> None:
        accepted = await world.accepted()  # once: between two looks another one may come
        assert len(accepted) == count + 1
        found.append(accepted[-1])

    await eventually(is_published)
    message = found[-1]
    return StoredMessage(
        seq=100 + count,
        stored_at=1,
        recipients=["bob"],
        reach=1,
        envelope=message.envelope,
        reply_to=message.reply_to,
        stanza_id="",
        received_at=message.received_at,
        via=message.via,
    )
