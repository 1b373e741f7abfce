"""Two nodes of ejabberd are one server for the bridge, and it hears of sessions whose node has died."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import pytest
from tlim_devstack.ejabberd import Ejabberd
from tlim_devstack.node_network import NodeNetwork
from tlim_devstack.supervision import Program
from tlim_protocol.stanzas import HINTS_NS

NO_STORE = f"<no-store xmlns='{HINTS_NS}'/>"


class HastyNode(Ejabberd):
    """One that takes a silent node for dead after eight seconds."""

    def prepare(self) -> Program:
        program, config = super().prepare(), self.home / "ejabberd.yml"
        config.write_text(config.read_text().replace("net_ticktime: 30s", "net_ticktime: 8s"))
        at_once = ["-kernel", "net_ticktime", "8"]  # ejabberd changes it slowly
        return replace(program, command=[*program.command, *at_once])


class Between:
    """The network between the nodes. It runs in a thread, because a test has an event loop for itself only."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._network = NodeNetwork(["first", "second"])
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> dict[str, int]:
        self._thread.start()
        self._do(self._network.__aenter__())
        return self._network.ports

    def __exit__(self, *_: object) -> None:
        self._do(self._network.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def cut(self) -> None:
        """Let nothing pass between the nodes."""
        for way in self._network.ways.values():
            self._do(way.cut())

    def looked(self, place: str) -> int:
        """How often a node has looked for the other one."""
        return self._network.looked[place]

    def mend(self) -> None:
        """Let everything pass again."""
        for way in self._network.ways.values():
            self._do(way.mend())


class Nodes(NamedTuple):
    first: Any
    second: Any
    between: Between


@pytest.fixture(scope="module")
def nodes(start_xmpp_server: Any, fragile_ejabberd: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    home, between = tmp_path_factory.mktemp("nodes"), Between()
    kind = type("FragileNode", (HastyNode, fragile_ejabberd), {})
    with between as mappers:
        first, second = [
            start_xmpp_server(home, partial(kind, number=number, mapper=port))
            for number, port in enumerate(mappers.values(), 1)
        ]
        yield Nodes(first, second, between)
        for server in (second, first):
            server.stop()


@pytest.fixture
def here(nodes: Nodes, scene_of: Any) -> Any:
    """The scene on the first node."""
    return scene_of(nodes.first)


@pytest.fixture
def there(nodes: Nodes, scene_of: Any) -> Any:
    """The scene on the second node."""
    return scene_of(nodes.second)


async def arrived(scene: Any, user: str, listeners: list[Any], *, managed: bool = False) -> Any:
    """Return a device that all listeners have heard of."""
    device = await scene.device(user, managed=managed)
    device.announce()
    for listener in listeners:
        await listener.hears("came", device.jid)
    return device


async def test_a_bridge_on_either_node_hears_of_sessions_on_both_and_serves_them(here: Any, there: Any) -> None:
    bridges = [await here.listener(), await there.listener()]
    users = [await here.person(), await here.person()]
    devices = [await arrived(scene, user, bridges) for scene, user in zip((here, there), users, strict=True)]
    late = await here.listener()
    await late.hears_of(*users)
    assert [word.jid for user in users for word in late.about(user)] == [device.jid for device in devices]
    for seq, bridge in enumerate(bridges, 101):
        for user, device in zip(users, devices, strict=True):
            bridge.deliver(user, seq)
            await device.gets(f"text {seq}")
    for device in devices:
        device.write(f"from {device.user}")
        # It may go to a bridge of the other node, whose barrier says nothing about this node.
        waits = [asyncio.ensure_future(bridge.is_sent(f"from {device.user}")) for bridge in (*bridges, late)]
        await next(asyncio.as_completed(waits))
        for wait in waits:
            wait.cancel()
    texts = [text for bridge in (*bridges, late) for text in bridge.diverted]
    assert sorted(texts) == sorted(f"from {user}" for user in users)


async def test_a_session_waits_for_a_bridge_that_leaves_the_other_node(here: Any, there: Any) -> None:
    user, leaving = await here.person(), await there.listener()
    device = await here.device(user, managed=False)
    device.write("one")
    await leaving.is_sent("one")
    staying = await here.listener()
    leaving.drain()
    await leaving.barrier()
    device.write("two")
    await staying.barrier()
    await leaving.close()
    await staying.is_sent("two", leaving)
    assert leaving.diverted + staying.diverted == ["one", "two"], "its node may not know yet that the bridge leaves"


async def test_a_recall_reaches_what_waits_on_the_other_node(here: Any, there: Any) -> None:
    listener, user = await here.listener(), await here.person()
    phone = await arrived(there, user, [listener], managed=True)
    await phone.breaks()
    await listener.hears("stale", phone.jid)
    listener.deliver(user, 101, 102)
    listener.deliver(user, 103, recalled=101)
    await listener.barrier()
    await phone.resume(heard=phone.received)
    await phone.gets("text 103")
    assert phone.texts == ["text 102", "text 103"]


async def test_more_than_a_socket_takes_goes_to_the_other_node_without_a_gap(here: Any, there: Any) -> None:
    listener, user = await here.listener(), await here.person()
    phone = await arrived(there, user, [listener])
    seqs = range(101, 601)
    listener.deliver(user, *seqs, hint=f"{NO_STORE}<x xmlns='padding'>{'x' * 100_000}</x>")
    await phone.gets("text 600")
    assert phone.texts == [f"text {seq}" for seq in seqs]


async def test_what_goes_to_a_session_of_the_other_node_that_has_ended_is_missed(here: Any, there: Any) -> None:
    listener, user = await here.listener(), await here.person()
    phone = await arrived(there, user, [listener])
    listener.deliver(user, 101)
    await phone.gets("text 101")
    phone.send(f"<message to='{phone.jid}'><body>die</body></message>")
    await listener.hears("gone", phone.jid)
    listener.deliver(user, 102)  # to a process that is no more, as the tables of ejabberd still name it
    await listener.misses(user, 102)


async def test_a_session_that_hangs_on_the_other_node_makes_nobody_wait(here: Any, there: Any) -> None:
    """Its client may read nothing. Each barrier would wait for it."""
    listener, user = await there.listener(), await here.person()
    phone = await arrived(here, user, [listener])
    await listener.barrier()
    phone.send(f"<message to='{phone.jid}'><body>hold on</body></message>")
    other = await arrived(here, await here.person(), [listener])
    other.send(f"<message to='{other.jid}'><body>is it given away</body></message>")
    await other.settles()
    async with asyncio.timeout(20):
        for seq in range(101, 131):
            listener.deliver(user, seq)
            await listener.barrier()
    other.send(f"<message to='{other.jid}'><body>take over</body></message>")
    await phone.gets("text 130")


async def test_what_is_still_on_the_way_to_a_node_that_hangs_is_missed_before_the_barrier_is_answered(
    nodes: Nodes, here: Any, there: Any
) -> None:
    """It would be lost with the node of the bridge. The other one may go on."""
    listener, user = await here.listener(), await there.person()
    phone = await arrived(there, user, [listener])
    await listener.barrier()
    nodes.second.freeze()
    try:
        listener.deliver(user, 101)
        await listener.barrier()
        assert listener.missed(user) == [101]
    finally:
        nodes.second.thaw()
    await phone.gets("text 101")
    listener.deliver(user, 102)
    await listener.barrier()
    await phone.gets("text 102")


async def test_the_sessions_of_a_node_that_stops_are_gone_and_nothing_more_counts_than_they_have(
    nodes: Nodes, here: Any, there: Any
) -> None:
    listener, user = await here.listener(), await here.person()
    phone = await arrived(there, user, [listener], managed=True)
    listener.deliver(user, 101, 102)
    await phone.gets("text 101", "text 102")
    phone.confirm(but=1)
    await phone.settles()
    await nodes.second.restart()
    confirmed = (await listener.hears("gone", phone.jid)).seq
    assert confirmed in {101, None}, "a watcher may be quicker than the session, and it does not know"
    again = await arrived(there, user, [listener])
    listener.deliver(user, 102)
    await again.gets("text 102")


async def test_who_was_on_a_node_that_is_killed_gets_everything_on_the_other_one(
    nodes: Nodes, here: Any, there: Any
) -> None:
    listener, user = await here.listener(), await here.person()
    other, neighbour = await there.listener(), await here.person()
    phone = await arrived(there, user, [listener, other], managed=True)
    beside = await arrived(here, neighbour, [listener, other])
    seqs = range(101, 1_101)
    listener.deliver(user, *seqs)
    await phone.gets("text 101")
    nodes.second.stop()
    assert await listener.hears("gone", phone.jid) == ("gone", phone.jid, listener.about(user)[0].session, None)
    await listener.barrier()
    phone = await arrived(here, user, [listener])
    listener.deliver(user, *seqs)
    await phone.gets(*(f"text {seq}" for seq in seqs))
    assert phone.texts == [f"text {seq}" for seq in seqs]
    beside.write("still here")
    await listener.is_sent("still here")
    assert listener.about(neighbour, "gone", "missed") == []
    newcomer = await here.listener()
    await newcomer.hears_of(user)
    assert [word.jid for word in newcomer.about(user)] == [phone.jid]
    await nodes.second.restart()


async def test_who_went_on_on_another_node_is_there_when_the_first_one_is_killed(
    nodes: Nodes, here: Any, there: Any
) -> None:
    """The process that had the session before lives on for a moment, or for as long as it hangs."""
    listener, user = await here.listener(), await here.person()
    phone = await there.device(user, "held", managed=True)
    phone.announce()
    came = await listener.hears("came", phone.jid)
    await phone.breaks()
    phone.server = nodes.first
    await phone.resume(heard=phone.received)
    assert await listener.hears("came", phone.jid) == came, "it has the same id"
    nodes.second.stop()
    await listener.hears("gone", phone.jid)
    await listener.hears("came", phone.jid)
    listener.deliver(user, 101)
    await phone.gets("text 101")
    await listener.barrier()
    assert listener.about(user)[-1] == came
    await nodes.second.restart()


async def test_a_bridge_on_a_node_that_was_restarted_hears_that_the_other_node_was_killed(
    nodes: Nodes, here: Any, there: Any
) -> None:
    before, user = await there.listener(), await here.person()
    phone = await arrived(here, user, [before])
    await nodes.second.restart()
    listener = await there.listener()
    await listener.hears("came", phone.jid)
    nodes.first.stop()
    await listener.hears("gone", phone.jid)
    await nodes.first.restart()


async def test_a_node_that_hung_and_was_given_up_starts_anew_and_is_one_with_the_other_again(
    nodes: Nodes, here: Any, there: Any
) -> None:
    listener, user = await here.listener(), await here.person()
    phone = await arrived(there, user, [listener])
    nodes.second.freeze()
    await listener.hears("gone", phone.jid)
    nodes.second.thaw()
    await asyncio.to_thread(nodes.second.ends)
    await nodes.second.restart()
    both = [await here.listener(), await there.listener()]
    phone, laptop = await arrived(there, user, both), await arrived(here, await here.person(), both)
    both[1].deliver(laptop.user, 101)
    both[0].deliver(user, 101)
    for device in (phone, laptop):
        await device.gets("text 101")


async def test_who_resumes_at_one_node_while_the_other_is_lost_hears_that_the_session_is_gone(
    nodes: Nodes, here: Any, there: Any
) -> None:
    phone = await arrived(there, await here.person(), [await here.listener()], managed=True)
    await phone.breaks()
    nodes.second.freeze()
    try:
        phone.server = nodes.first
        await phone.ask_to_resume(heard=phone.received)
        await phone.take("failed")
    finally:
        nodes.second.thaw()
    await asyncio.to_thread(nodes.second.ends)
    await nodes.second.restart()


async def test_whose_account_was_closed_at_a_node_that_was_lost_is_shut_out_at_the_other_when_they_meet(
    nodes: Nodes, here: Any, there: Any
) -> None:
    listener, user = await here.listener(), await here.person()
    phone = await arrived(here, user, [listener])
    laptop = await arrived(there, await here.person(), [listener])
    laptop.send(f"<message to='{phone.jid}'><body>change the password</body></message>")
    await laptop.settles()
    await phone.settles()
    nodes.second.freeze()
    await listener.hears("gone", laptop.jid)
    nodes.second.thaw()
    await phone.take("stream")
    await asyncio.to_thread(nodes.second.ends)
    await nodes.second.restart()


async def test_the_sessions_of_a_node_that_was_lost_for_a_moment_are_gone(nodes: Nodes, here: Any, there: Any) -> None:
    """The nodes meet again before the watcher of a session looks at its node. Then that node starts anew."""
    listener, quiet, busy = await here.listener(), await here.person(), await here.person()
    phone, laptop = [await arrived(there, user, [listener]) for user in (quiet, busy)]

    async def keeps_announcing() -> None:
        with suppress(AssertionError, ConnectionError):  # the node has ended the connection
            while True:
                laptop.announce()
                await laptop.settles()

    announcing = asyncio.create_task(keeps_announcing())
    await asyncio.to_thread(nodes.between.cut)
    await asyncio.to_thread(nodes.between.mend)
    await asyncio.to_thread(nodes.second.ends)
    await announcing
    await listener.hears("gone", phone.jid)
    async with asyncio.timeout(20):
        while listener.about(busy)[-1].what != "gone":
            await listener.barrier()
    await nodes.second.restart()


async def test_a_node_that_was_started_anew_during_a_split_is_one_with_the_other_again(
    nodes: Nodes, here: Any, there: Any
) -> None:
    """It has not lost the other node: it has never met it."""
    listener, user = await here.listener(), await here.person()
    phone = await arrived(there, user, [listener])
    await asyncio.to_thread(nodes.between.cut)
    await listener.hears("gone", phone.jid)
    await nodes.first.restart()
    await asyncio.to_thread(nodes.between.mend)
    await asyncio.to_thread(nodes.second.ends)
    await nodes.second.restart()
    both = [await here.listener(), await there.listener()]
    await arrived(there, user, both)


async def test_a_node_that_was_killed_and_started_during_a_split_is_one_with_the_other_again(
    nodes: Nodes, eventually: Any, here: Any, there: Any
) -> None:
    """It waits for the tables of the other one, which may be newer, and Mnesia does not join them when they meet."""
    listener, user = await here.listener(), await here.person()
    nodes.second.stop()
    await asyncio.to_thread(nodes.between.cut)
    before = nodes.between.looked("second")
    nodes.second.start()

    async def has_looked_in_vain() -> None:
        assert nodes.between.looked("second") > before

    await eventually(has_looked_in_vain)
    await asyncio.to_thread(nodes.between.mend)
    await nodes.second.comes_up()
    both = [listener, await there.listener()]
    await arrived(there, user, both)
