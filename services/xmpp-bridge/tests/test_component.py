"""The component connection as liveness sees it."""

import asyncio

import pytest
from tlim_runtime import pulse
from tlim_runtime.background import stuck
from tlim_runtime.pulse import HUNG_S
from tlim_xmpp.keeper import StreamKeeper
from xmpp_bridge.component import Component
from xmpp_bridge.translate import BridgeAddresses


class Clock:
    """Time that passes when a test says so; in place of the module `time`."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


async def test_liveness_sees_a_loop_of_the_connection_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, hangs = Clock(), asyncio.Event()

    async def hang(_keeper: StreamKeeper) -> bool:
        hangs.set()
        await asyncio.Event().wait()
        return False

    monkeypatch.setattr(pulse, "time", clock)
    monkeypatch.setattr(StreamKeeper, "attempt", hang)
    component = Component(BridgeAddresses("tlim.test", "bridge.tlim.test"), "secret", "127.0.0.1", 1)
    component.start(lambda _message: None)
    await hangs.wait()
    clock.now += HUNG_S + 1
    assert "XMPP connection: it hangs since 301 s" in stuck()
    await component.close()
