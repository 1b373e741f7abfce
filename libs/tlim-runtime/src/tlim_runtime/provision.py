"""Create or update all streams and consumers: `python -m tlim_runtime.provision`, as the NATS user `provision`.

Reads TLIM_NATS_URL, TLIM_NATS_USER, TLIM_NATS_PASSWORD and TLIM_NATS_REPLICAS. Idempotent: run it at every deployment.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, DiscardPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError
from pydantic import Field, SecretStr
from tlim_protocol.streams import CONSUMERS, STREAMS, ConsumerSpec, StreamName, StreamSpec, WhenFull, inbox_prefix

from tlim_runtime.logging import configure_logging, get_logger
from tlim_runtime.settings import EnvironmentSettings, load_settings

logger = get_logger(__name__)


CONNECT_S = 10.0
"""How long we wait for NATS. A server that starts at the same time is up within seconds. If it takes longer, the
address is probably wrong."""

_MANY_ATTEMPTS = 60
"""More than there is time for in CONNECT_S."""


_UNSHARDED = "xmpp-bridge"
"""The bridge's only consumer in earlier releases. Its subjects had the numbers of conversations at their end."""

_UNPINNED_AFTER_S = 120.0
"""The server gives the pin to another client if the pinned one asks for nothing. A session asks at least once a minute
(pull.PINNED_S)."""


class ProvisionSettings(EnvironmentSettings):
    """How to reach NATS, and on how many of its nodes each message is kept."""

    nats_url: str
    nats_user: str = "provision"
    nats_password: SecretStr
    nats_replicas: int = Field(default=1, ge=1, le=5)
    """On how many nodes of NATS each message is kept: 1, or 3 with a cluster of three."""


_DISCARD = {WhenFull.REFUSE_NEW: DiscardPolicy.NEW, WhenFull.DROP_OLDEST: DiscardPolicy.OLD}


async def provision(client: Client, replicas: int = 1) -> None:
    """Bring JetStream to what the protocol library says; raises nats.errors.Error when the server refuses."""
    jetstream = client.jetstream()
    for stream in STREAMS:  # keep this order: the server refuses a subject that another stream still has
        await _ensure_stream(jetstream, stream_config(stream, replicas))
    await _retire_unsharded(jetstream)
    for consumer in CONSUMERS:
        # Creating a consumer that exists updates its settings. It keeps its place in the stream.
        await jetstream.add_consumer(consumer.stream.value, consumer_config(consumer))
    logger.info("provisioned", streams=len(STREAMS), consumers=len(CONSUMERS))


async def _retire_unsharded(jetstream: JetStreamContext) -> None:
    """Delete the consumer of the release before delivery shards, and first what waits for it.

    Events of that release name people of all shards at once. message-store's migration lets everybody catch up.
    """
    stream = StreamName.OUT.value
    with suppress(NotFoundError):
        await jetstream.consumer_info(stream, _UNSHARDED)
        await jetstream.purge_stream(stream)
        await jetstream.delete_consumer(stream, _UNSHARDED)
        logger.info("retired the consumer of an earlier release", durable=_UNSHARDED)


@dataclass
class PinnedConfig(ConsumerConfig):
    """A consumer's form with what nats-py does not know yet: pinned clients (ADR-42)."""

    priority_policy: str | None = None
    priority_groups: list[str] | None = None
    priority_timeout: int | None = None  # nanoseconds


def stream_config(spec: StreamSpec, replicas: int) -> StreamConfig:
    """Return the server's form of a stream."""
    return StreamConfig(
        name=spec.name.value,
        subjects=list(spec.subjects),
        max_age=spec.max_age.total_seconds(),
        max_bytes=spec.max_bytes,
        duplicate_window=spec.duplicate_window.total_seconds(),
        discard=_DISCARD[spec.when_full],
        storage=StorageType.FILE,
        max_msgs_per_subject=spec.per_subject or -1,
        num_replicas=replicas,
        allow_direct=False,  # a direct read may come from a replica that lags
    )


def consumer_config(spec: ConsumerSpec) -> ConsumerConfig:
    """Return the server's form of a consumer."""
    return PinnedConfig(
        durable_name=spec.durable,
        filter_subjects=list(spec.filter_subjects),
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=spec.ack_wait.total_seconds(),
        max_ack_pending=spec.max_ack_pending,
        max_deliver=-1,  # no silent end: messages that nobody can process go to the dead-letter stream
        deliver_policy=DeliverPolicy.ALL,
        **({} if spec.group is None else _pinned(spec.group)),
    )


def _pinned(group: str) -> dict[str, Any]:
    nanoseconds = int(_UNPINNED_AFTER_S * 1_000_000_000)
    return {"priority_policy": "pinned_client", "priority_groups": [group], "priority_timeout": nanoseconds}


async def _ensure_stream(jetstream: JetStreamContext, config: StreamConfig) -> None:
    try:
        await jetstream.stream_info(str(config.name))
    except NotFoundError:
        await jetstream.add_stream(config)
    else:
        await jetstream.update_stream(config)


async def _ignore(_error: Exception) -> None:
    pass


@asynccontextmanager
async def connected(
    url: str, user: str, password: str, *, within_s: float = CONNECT_S, attempts: int = _MANY_ATTEMPTS
) -> AsyncIterator[Client]:
    """Lend a connection that is not made again. Raises nats.errors.Error, OSError or TimeoutError without one.

    `attempts` is how often a server may refuse to connect, two seconds apart, until we give up before `within_s`.
    """
    client = Client()
    try:
        async with asyncio.timeout(within_s):
            await client.connect(
                url,
                user=user,
                password=password,
                inbox_prefix=inbox_prefix(user),
                allow_reconnect=False,
                max_reconnect_attempts=attempts - 1,  # it counts those after the first
                error_cb=_ignore,  # nats-py reports each attempt; a command says one line at the end
            )
        yield client
    finally:
        await client.close()


async def provision_server(settings: ProvisionSettings) -> None:
    """Provision the server of the settings; raises like `connected`."""
    password = settings.nats_password.get_secret_value()
    async with connected(settings.nats_url, settings.nats_user, password) as client:
        await provision(client, settings.nats_replicas)


def main() -> None:
    """Provision with the settings of the environment; exits 1 with the reason when that fails."""
    settings = load_settings(ProvisionSettings)
    configure_logging("provision")
    try:
        asyncio.run(provision_server(settings))
    except (nats.errors.Error, OSError, TimeoutError) as error:
        reason = str(error) or f"no answer from {settings.nats_url}"
        sys.stderr.write(f"provisioning failed: {reason}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
