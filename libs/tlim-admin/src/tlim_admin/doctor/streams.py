"""Checks of NATS: the login, streams and consumers, and the room that streams have."""

from nats.aio.client import Client
from nats.js.api import DiscardPolicy, StreamConfig
from nats.js.errors import NotFoundError
from tlim_protocol.streams import CONSUMERS, STREAMS, StreamSpec, WhenFull
from tlim_runtime.provision import connected

from tlim_admin.doctor.findings import Finding, doubtful, fine, wrong

NAME = "NATS"
ANSWER_S = 10.0
"""How long we wait for NATS: the client would try for minutes."""

FULL = 0.8
"""As the alert TlimStreamFull. Nobody tells us how much JetStream may store: streams that do not fit are not made."""

ATTEMPTS = 2
"""How often it may refuse to connect. All of this is looked at again anyway (findings.LOOKS)."""

_PROVISION = "run python -m tlim_runtime.provision (compose: docker compose up streams)"
_DISCARD = {WhenFull.REFUSE_NEW: DiscardPolicy.NEW, WhenFull.DROP_OLDEST: DiscardPolicy.OLD}


async def look(url: str, user: str, password: str, replicas: int) -> list[Finding]:
    """Look at JetStream as the user `provision`; each stream has to be on so many nodes."""
    async with connected(url, user, password, within_s=ANSWER_S, attempts=ATTEMPTS) as client:
        version = str(client.connected_server_version).strip("<>")  # nats server v2.15.1
        return [fine(NAME, version), await _used(client), *await _streams(client, replicas)]


async def _used(client: Client) -> Finding:
    account = await client.jetstream().account_info()
    return fine(f"{NAME} storage", f"{account.storage / 1e6:.1f} MB used")


def judge_stream(spec: StreamSpec, found: StreamConfig, replicas: int) -> list[Finding]:
    """Compare a stream with what this release and this deployment need; return nothing if it is so."""
    name = f"{NAME} {spec.name}"
    is_right = (
        set(found.subjects or ()) == set(spec.subjects)
        and found.max_bytes == spec.max_bytes
        and found.discard == _DISCARD[spec.when_full]
    )
    if not is_right:
        return [wrong(name, "has other settings than this release needs", _PROVISION)]
    if found.num_replicas != replicas:
        seen = f"is on {found.num_replicas} nodes, and TLIM_NATS_REPLICAS says {replicas}"
        return [wrong(name, seen, f"set TLIM_NATS_REPLICAS right, then {_PROVISION}")]
    return []


def judge_room(spec: StreamSpec, used: int) -> list[Finding]:
    """Warn of a stream that will soon take nothing more; `used` in bytes."""
    share = used / spec.max_bytes
    if spec.when_full is not WhenFull.REFUSE_NEW or share <= FULL:
        return []
    return [doubtful(f"{NAME} {spec.name}", f"is {share:.0%} full", "look at TlimStreamFull in docs/runbook.md")]


async def _streams(client: Client, replicas: int) -> list[Finding]:
    jetstream, findings = client.jetstream(), []
    for spec in STREAMS:
        try:
            stream = await jetstream.stream_info(spec.name.value)
        except NotFoundError:
            findings.append(wrong(f"{NAME} {spec.name}", "there is no such stream", _PROVISION))
            continue
        findings += [*judge_stream(spec, stream.config, replicas), *judge_room(spec, stream.state.bytes)]
    missing = []
    for consumer in CONSUMERS:
        try:
            await jetstream.consumer_info(consumer.stream.value, consumer.durable)
        except NotFoundError:
            missing.append(consumer.durable)
    if missing:
        findings.append(wrong(f"{NAME} consumers", f"{missing[0]} is missing, of {len(missing)}", _PROVISION))
    return findings or [fine(f"{NAME} streams", f"{len(STREAMS)} streams and {len(CONSUMERS)} consumers")]
