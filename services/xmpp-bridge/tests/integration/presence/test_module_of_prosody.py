"""What only Prosody has: queues that drop the oldest, time-outs in our module, a component for each bridge."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from tlim_devstack.prosody import Prosody
from tlim_devstack.supervision import Program
from tlim_devstack.xmpp_servers import COMPONENT, DOMAIN, XmppSettings

SECOND = f"second.{COMPONENT}"


class QuickProsody(Prosody):
    """One with a time-out of six seconds for silence. A login has no longer silence."""

    def prepare(self) -> Program:
        program = super().prepare()
        self.config.write_text(self.config.read_text().replace("read_timeout = 80", "read_timeout = 6"))
        return program


class OddProsody(Prosody):
    """One with room for five unconfirmed stanzas, a second bridge, and a shell."""

    def __init__(self, settings: XmppSettings) -> None:
        super().__init__(settings, components=(COMPONENT, SECOND))

    def prepare(self) -> Program:
        program = super().prepare()
        config = self.config.read_text().replace("smacks_max_queue_size = 10500", "smacks_max_queue_size = 5")
        self.config.write_text(config.replace('"tlim_bridge";', '"tlim_bridge"; "admin_shell";'))
        return program

    def reload_module(self) -> None:
        command = self._as_prosody("prosodyctl", "shell", "module", "reload", "tlim_bridge", DOMAIN)
        subprocess.run(command, check=True, capture_output=True, cwd="/", timeout=20)  # noqa: S603 - a fixed command


def running(kind: type[Prosody]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("xmpp_server", [kind], indirect=True, ids=["prosody"], scope="session")


@pytest_asyncio.fixture
async def pinging_listener(scene: Any) -> AsyncIterator[Any]:
    """A component that pings each second, as a bridge does each half minute."""
    listener = await scene.listener()

    async def ping() -> None:
        while True:
            await listener.barrier()
            await asyncio.sleep(1)

    async with asyncio.TaskGroup() as group:
        pinging = group.create_task(ping())
        yield listener
        pinging.cancel()


@running(QuickProsody)
async def test_a_silent_bridge_makes_way_for_the_next_one_of_its_name(scene: Any) -> None:
    silent = await scene.listener()
    await silent.ends(at_a_ping=False)
    again = await scene.listener()
    await again.hears("hello", DOMAIN)


@running(QuickProsody)
@pytest.mark.parametrize("managed", [False, True], ids=["unmanaged", "managed"])
async def test_a_client_whose_network_silently_ended_is_noticed(
    scene: Any, pinging_listener: Any, managed: bool
) -> None:
    listener, user = pinging_listener, await scene.person()
    phone = await scene.device(user, managed=managed, resumable=False)
    phone.announce()
    came = await listener.hears("came", phone.jid)
    assert await listener.hears("gone", phone.jid) == ("gone", phone.jid, came.session, None)


@running(QuickProsody)
async def test_a_client_without_stream_management_and_a_bridge_stay_if_they_are_heard(
    scene: Any, pinging_listener: Any
) -> None:
    listener, user = pinging_listener, await scene.person()
    phone = await scene.device(user, managed=False)
    phone.announce()
    await listener.hears("came", phone.jid)
    for _ in range(2):  # the second one comes only if the answer to the first one counted
        while (ping := await phone.take("iq")).get("type") != "get":
            pass
        phone.send(f"<iq type='result' id='{ping.get('id')}' to='{DOMAIN}'/>")
    await listener.barrier()
    assert listener.about(user, "gone") == []


@running(OddProsody)
@pytest.mark.parametrize("resumable", [False, True])
async def test_what_a_full_queue_has_dropped_does_not_count_as_confirmed(scene: Any, resumable: bool) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone = await scene.device(user, managed=True, resumable=resumable)
    phone.announce()
    await listener.hears("came", phone.jid)
    listener.deliver(user, *range(101, 121))
    await phone.gets("text 120")
    await phone.breaks()
    assert (await listener.hears("stale" if resumable else "gone", phone.jid)).seq == 100


@running(OddProsody)
async def test_all_bridges_are_told_everything(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    second = await scene.listener(SECOND)
    phone = await scene.device(user, managed=True, resumable=False)
    phone.announce()
    for one in (listener, second):
        await one.hears("came", phone.jid)
    listener.deliver(user, 101)
    await phone.breaks()
    listener.deliver(user, 102)
    for one in (listener, second):
        await one.hears("gone", phone.jid)
        await one.misses(user, 101, 102)
    assert listener.about(user) == second.about(user)


@running(OddProsody)
async def test_a_module_that_is_loaded_late_says_who_is_there(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone = await scene.device(user, managed=False)
    phone.announce()
    came = await listener.hears("came", phone.jid)
    listener.deliver(user, 101)
    await phone.gets("text 101")
    await asyncio.to_thread(scene.server.software.reload_module)
    await listener.hears("hello", DOMAIN)
    assert await listener.hears("came", phone.jid) == came
    listener.deliver(user, 102)
    await phone.gets("text 102")
    await phone.end()
    assert (await listener.hears("gone", phone.jid)).seq == 102


@running(OddProsody)
async def test_a_server_that_is_stopped_says_before_what_each_client_has(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone = await scene.device(user, managed=True)
    phone.announce()
    await listener.hears("came", phone.jid)
    listener.deliver(user, 101, 102)
    await phone.gets("text 101", "text 102")
    phone.confirm(but=1)
    await phone.settles()
    await scene.server.restart()
    assert (await listener.hears("gone", phone.jid)).seq == 101
    await listener.misses(user, 102)


@running(OddProsody)
async def test_a_new_connection_hears_that_a_session_is_stale(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    phone = await scene.device(user, managed=True)
    phone.announce()
    await phone.breaks()
    stale = await listener.hears("stale", phone.jid)
    second = await scene.listener(SECOND)
    assert await second.hears("stale", phone.jid) == stale


@running(OddProsody)
async def test_one_session_more_than_a_person_may_have_ends_the_oldest(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    devices = []
    for number in range(21):
        devices.append(await scene.device(user, f"device-{number}", managed=number == 0))
        devices[-1].announce()
        await listener.hears("came", devices[-1].jid)
        if number == 0:
            await devices[0].breaks()
    await listener.barrier()
    assert [word.jid for word in listener.about(user, "gone")] == [devices[0].jid]


@running(OddProsody)
async def test_one_session_more_than_a_person_may_have_ends_a_browser_that_lost_its_network(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    async with scene.browser(user, resumable=True):
        oldest = await listener.hears("came", f"{user}@{DOMAIN}")
    await listener.hears("stale", oldest.jid)
    for number in range(20):
        (await scene.device(user, f"device-{number}", managed=False)).announce()
    await listener.hears("gone", oldest.jid)
    await listener.barrier()
    assert [word.jid for word in listener.about(user, "gone")] == [oldest.jid]


@running(OddProsody)
async def test_what_came_before_stream_management_counts_when_the_client_confirms_anything(scene: Any) -> None:
    listener, user = await scene.listener(), await scene.person()
    for confirms, confirmed in ((False, 100), (True, 102)):
        phone = await scene.device(user, managed=False)
        phone.announce()
        await listener.hears("came", phone.jid)
        listener.deliver(user, 101)
        await phone.gets("text 101")
        await phone.manage(resumable=False)
        listener.deliver(user, 102, 103)
        await phone.gets("text 102", "text 103")
        if confirms:
            phone.confirm(but=1)
        await phone.breaks()
        assert (await listener.hears("gone", phone.jid)).seq == confirmed
