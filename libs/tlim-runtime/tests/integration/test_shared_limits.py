"""Two instances, two connections to a real NATS: a limit is one limit."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

import pytest
from tlim_devstack.pytest_plugin import ConnectBroker
from tlim_runtime.errors import TooManyRequests
from tlim_runtime.metrics import Metrics
from tlim_runtime.shared_limits import limits_shared
from tlim_runtime.throttle import Throttle

Eventually = Callable[[Callable[[], object], str], Awaitable[None]]
SERVICES = ["session-api", "file-api", "xmpp-bridge"]


def refuses(throttle: Throttle, key: str) -> bool:
    try:
        throttle.check(key)
    except TooManyRequests:
        return True
    return False


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("is_told_at_once", [False, True])
async def test_what_is_used_up_at_one_instance_is_used_up_at_the_other(
    service: str, is_told_at_once: bool, connect_broker: ConnectBroker, eventually: Eventually
) -> None:
    here, there = (Throttle("3/day", "user") for _ in range(2))
    async with AsyncExitStack() as stack:
        for throttle in (here, there):
            limits = {"tries": throttle}
            shared = limits_shared(
                await connect_broker(service),  # with the permissions that it has
                service,
                Metrics(),
                limits={} if is_told_at_once else limits,
                at_once=limits if is_told_at_once else {},
            )
            await stack.enter_async_context(shared)
        here.hit("alice")
        there.hit("alice", 2)
        for throttle in (here, there):
            await eventually(partial(refuses, throttle, "alice"), "alice has used up her limit")
            assert not refuses(throttle, "bob")


async def test_an_instance_that_stops_tells_what_is_left(connect_broker: ConnectBroker, eventually: Eventually) -> None:
    here, there = (Throttle("1/day", "user") for _ in range(2))
    async with limits_shared(await connect_broker(SERVICES[0]), SERVICES[0], Metrics(), limits={"tries": there}):
        async with limits_shared(await connect_broker(SERVICES[0]), SERVICES[0], Metrics(), limits={"tries": here}):
            here.hit("alice")
        await eventually(lambda: refuses(there, "alice"), "the other one knows")
