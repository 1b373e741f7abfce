from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import nats as nats_client
import pytest
import pytest_asyncio
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed
from tlim_devstack import nats
from tlim_devstack.restartable import RestartableNats
from tlim_devstack.servers import NatsServer
from tlim_protocol.streams import ConsumerSpec
from tlim_runtime.broker import Broker, BrokerUnavailable
from tlim_runtime.provision import consumer_config, provision


@pytest_asyncio.fixture
async def restartable_broker(restartable_nats: RestartableNats) -> AsyncIterator[Broker]:
    password = restartable_nats.passwords[nats.TEST_USER]
    broker = await Broker.connect(restartable_nats.url, nats.TEST_USER, password, "test")
    await _provision(restartable_nats.url, password)
    yield broker
    await broker.close()


async def _provision(url: str, password: str) -> None:
    connection = await nats_client.connect(url, user=nats.TEST_USER, password=password)
    await provision(connection)
    await connection.close()


PATIENCE_S = 30

MakeConsumer = Callable[[ConsumerSpec], Awaitable[None]]


@pytest_asyncio.fixture
async def make_consumer(broker: Broker, nats_server: NatsServer) -> AsyncIterator[MakeConsumer]:
    """Create a durable with other limits than those of production, on the test's clean streams."""
    del broker  # its streams are needed
    async with AsyncExitStack() as stack:
        password = nats_server.passwords[nats.TEST_USER]
        connection = await nats_client.connect(nats_server.url, user=nats.TEST_USER, password=password)
        stack.push_async_callback(connection.close)

        async def make(spec: ConsumerSpec) -> None:
            await connection.jetstream().add_consumer(spec.stream.value, consumer_config(spec))

        yield make


Eventually = Callable[[Callable[[], object], str], Awaitable[None]]


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a condition holds; fail naming it when it does not within a generous time."""

    async def wait(condition: Callable[[], object], what: str) -> None:
        patience = stop_after_delay(PATIENCE_S)
        async for attempt in AsyncRetrying(stop=patience, wait=wait_fixed(0.01), reraise=True):
            with attempt:
                assert condition(), f"not so within {PATIENCE_S} s: {what}"

    return wait


@pytest.fixture
def surely() -> Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]:
    """Do something again until NATS takes it; fail when it does not within a generous time."""

    async def act_until_taken(act: Callable[[], Awaitable[None]]) -> None:
        patience, refused = stop_after_delay(PATIENCE_S), retry_if_exception_type(BrokerUnavailable)
        async for attempt in AsyncRetrying(stop=patience, wait=wait_fixed(0.05), retry=refused, reraise=True):
            with attempt:
                await act()

    return act_until_taken
