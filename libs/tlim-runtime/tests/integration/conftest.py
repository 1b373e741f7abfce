import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import nats as nats_client
import pytest
import pytest_asyncio
from nats.js.api import AckPolicy, ConsumerConfig
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_devstack import nats
from tlim_devstack.processes import ServerProcess, dies_with_parent
from tlim_devstack.servers import NatsServer, nats_passwords
from tlim_devstack.waiting import free_port
from tlim_protocol.streams import ConsumerSpec
from tlim_runtime.broker import Broker
from tlim_runtime.provision import provision


@dataclass
class RestartableNats:
    """A NATS server of one test that may be killed and started again on the same data."""

    directory: Path
    port: int = field(default_factory=free_port)
    passwords: dict[str, str] = field(default_factory=nats_passwords)
    process: ServerProcess | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = nats.write_config(self.directory, self.passwords)
        command = dies_with_parent(nats.command(config, self.directory / "data", self.port))
        self.process = ServerProcess("NATS", command, self.directory / "nats.log")
        self.process.wait_ready(lambda: nats.greets(self.port))

    def reload(self, passwords: dict[str, str]) -> None:
        """Let the running server take other passwords."""
        nats.write_config(self.directory, passwords)
        if self.process is not None:
            self.process.process.send_signal(signal.SIGHUP)

    def freeze(self) -> None:
        """Let it keep its connections and say nothing."""
        if self.process is not None:
            self.process.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self.process is not None:
            self.process.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut would: nothing is written any more."""
        if self.process is not None:
            self.process.stop(signal.SIGKILL)
            self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None


@pytest.fixture
def restartable_nats(tmp_path: Path) -> Iterator[RestartableNats]:
    server = RestartableNats(tmp_path / "nats")
    server.start()
    yield server
    server.thaw()
    server.stop()


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
            config = ConsumerConfig(
                durable_name=spec.durable,
                filter_subjects=list(spec.filter_subjects),
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=spec.ack_wait.total_seconds(),
                max_ack_pending=spec.max_ack_pending,
            )
            await connection.jetstream().add_consumer(spec.stream.value, config)

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
