"""The messages of a session keep their order while bridges come and go."""

from typing import Any

import pytest
from tlim_devstack.ejabberd import Ejabberd
from tlim_devstack.prosody import Prosody
from tlim_devstack.supervision import Program
from tlim_devstack.xmpp_servers import COMPONENT, DOMAIN
from tlim_protocol.stanzas import TLIM_NS

NAMES = (COMPONENT, f"second.{COMPONENT}", f"third.{COMPONENT}")


class ThreeBridgesProsody(Prosody):
    """One with a component for each of three bridges."""

    def prepare(self) -> Program:
        program, secret = super().prepare(), self.settings.credentials.component
        names = ", ".join(f'"{name}"' for name in NAMES)
        host = f'VirtualHost "{DOMAIN}"'
        config = self.config.read_text().replace(host, f"{host}\n  tlim_bridge_components = {{ {names} }}")
        section = '\nComponent "{}"\n  component_secret = "{}"\n  validate_from_addresses = false\n'
        self.config.write_text(config + "".join(section.format(name, secret) for name in NAMES[1:]))
        return program


pytestmark = pytest.mark.parametrize(
    "xmpp_server",
    [Ejabberd, ThreeBridgesProsody],
    indirect=True,
    ids=lambda kind: kind.package,
    scope="session",
)


def names(scene: Any) -> tuple[str, ...]:
    """Return what three bridges are called: ejabberd has several connections of one component."""
    return NAMES if scene.server.software.package == "prosody" else (COMPONENT,) * 3


async def bridge_of(device: Any, bridges: list[Any], text: str) -> tuple[Any, Any]:
    """Send a message. Return the bridge that got it, and the other one."""
    device.write(text)
    await device.settles()
    for bridge in bridges:
        await bridge.barrier()
    (chosen,) = [bridge for bridge in bridges if text in bridge.diverted]
    (other,) = [bridge for bridge in bridges if bridge is not chosen]
    return chosen, other


async def two_bridges(scene: Any) -> list[Any]:
    first, second, _ = names(scene)
    return [await scene.listener(first), await scene.listener(second)]


async def test_what_a_session_sends_waits_for_the_end_of_its_bridge_and_new_sessions_do_not(scene: Any) -> None:
    user, bridges = await scene.person(), await two_bridges(scene)
    device = await scene.device(user, managed=False)
    leaving, staying = await bridge_of(device, bridges, "one")
    leaving.drain()
    await leaving.barrier()
    device.write("two")
    newcomer = await scene.device(user, "newcomer", managed=False)
    newcomer.write("news")
    await staying.is_sent("news")
    await leaving.barrier()
    assert leaving.diverted + staying.diverted == ["one", "news"]
    leaving.chat(user, "under way")
    await leaving.close()
    await staying.is_sent("two")
    device.write("three")
    await staying.is_sent("three")
    assert staying.diverted == ["news", "two", "three"]


async def test_a_session_keeps_to_its_bridge_when_another_one_comes(scene: Any) -> None:
    first, second, third = names(scene)
    user, bridge = await scene.person(), await scene.listener(first)
    devices = [await scene.device(user, f"device-{number}", managed=False) for number in range(5)]
    for device in devices:
        device.write("one")
        await device.settles()
    others = [await scene.listener(second), await scene.listener(third)]
    for device in devices:
        device.write("two")
        await device.settles()
    for one in (bridge, *others):
        await one.barrier()
    assert [len(one.diverted) for one in (bridge, *others)] == [10, 0, 0]


async def test_without_another_bridge_what_waited_is_refused(scene: Any) -> None:
    user, bridge = await scene.person(), await scene.listener(names(scene)[0])
    device = await scene.device(user, managed=False)
    device.write("one")
    await bridge.is_sent("one")
    bridge.drain()
    await bridge.barrier()
    device.write("two")
    await bridge.close()
    assert (await device.take("message")).get("type") == "error"
    bridge = await scene.listener(names(scene)[0])
    device.write("three")
    await bridge.is_sent("three")


async def test_nobody_else_can_say_that_a_bridge_leaves(scene: Any) -> None:
    user, bridge = await scene.person(), await scene.listener(names(scene)[0])
    device = await scene.device(user, managed=False)
    device.send(f"<presence type='unavailable' to='{DOMAIN}'><draining xmlns='{TLIM_NS}'/></presence>")
    device.write("one")
    await bridge.is_sent("one")
