"""JetStream streams and consumers, and what each NATS user may publish and subscribe to: data for provisioning."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from tlim_protocol.identity import DELIVERY_SHARDS, SHARDS, shard_of
from tlim_protocol.registry import AUDIT_TYPES, CLIENT_TYPES, SESSION_TYPES
from tlim_protocol.subjects import (
    ALL_ANSWERS,
    ALL_DEAD,
    ALL_LEASES,
    ALL_OUT,
    Rpc,
    every_in,
    every_in_shard,
    every_out,
    subject_of_limits,
)


class StreamName(StrEnum):
    """The streams: accepted messages, committed messages, events of files, messages nobody can process, and leases."""

    IN = "TLIM_IN"
    OUT = "TLIM_OUT"
    FILES = "TLIM_FILES"
    DEAD = "TLIM_DEAD"
    LEASES = "TLIM_LEASES"


class WhenFull(StrEnum):
    """What a stream does at its `max_bytes`."""

    REFUSE_NEW = "refuses what is new"  # the publisher is told and tries again, so nothing is lost in silence
    DROP_OLDEST = "drops what is oldest"  # only for streams without a consumer of ours: they must not stop the rest


class StreamSpec(NamedTuple):
    """A stream: the subjects it keeps, how long, and how much of it. `per_subject`: only so many of each subject."""

    name: StreamName
    subjects: tuple[str, ...]
    max_age: timedelta
    max_bytes: int
    when_full: WhenFull = WhenFull.REFUSE_NEW
    duplicate_window: timedelta = timedelta(minutes=10)
    per_subject: int | None = None


class ConsumerSpec(NamedTuple):
    """A durable pull consumer with explicit acks. It has its stream, or the subjects of its filter, for itself.

    A message is removed from the stream when `keep` has passed since the consumer acknowledged it.
    """

    stream: StreamName
    durable: str
    filter_subjects: tuple[str, ...]
    keep: timedelta
    ack_wait: timedelta = timedelta(seconds=30)  # a batch takes milliseconds, so only a dead process takes longer
    max_ack_pending: int = 2_000  # a few batches: more messages would only wait in the consumer's memory
    group: str | None = None  # only one process at a time gets messages (JetStream's pinned clients, ADR-42)


_MIB = 1024**2
_GIB = 1024**3

_FOR_THE_STORE = tuple(every_in(kind) for kind in (*CLIENT_TYPES, *SESSION_TYPES))
_OF_FILES = tuple(every_in(kind) for kind in AUDIT_TYPES)

# Together they fit into max_file_store of deploy/nats/nats.conf. Keep TLIM_IN first: older releases kept all of tlim.in
# in it. It must give up the events of files before TLIM_FILES can take them.
STREAMS = (
    StreamSpec(StreamName.IN, _FOR_THE_STORE, max_age=timedelta(days=7), max_bytes=4 * _GIB),
    StreamSpec(StreamName.OUT, (ALL_OUT,), max_age=timedelta(days=7), max_bytes=4 * _GIB),
    # For the operator's audit.
    StreamSpec(StreamName.FILES, _OF_FILES, timedelta(days=90), _GIB, WhenFull.DROP_OLDEST),
    StreamSpec(StreamName.DEAD, (ALL_DEAD,), timedelta(days=90), _GIB, WhenFull.DROP_OLDEST),
    # A lease is renewed twice a second, so an old one means nothing. Bridges have new names at every start.
    StreamSpec(
        StreamName.LEASES,
        (ALL_LEASES,),
        max_age=timedelta(minutes=1),
        max_bytes=_MIB,
        when_full=WhenFull.DROP_OLDEST,
        duplicate_window=timedelta(minutes=1),
        per_subject=1,
    ),
)

STORE_GROUPS = 8
"""Groups of shards of conversations: each is worked on by one store at a time, so up to eight stores divide them."""

STORE_INBOXES = tuple(
    ConsumerSpec(
        StreamName.IN,
        f"message-store-{group}",
        tuple(every_in_shard(shard) for shard in range(group, SHARDS, STORE_GROUPS)),
        keep=timedelta(0),  # PostgreSQL has them
    )
    for group in range(STORE_GROUPS)
)
"""One for each group of shards, by its number."""


def store_group(conversation_id: str) -> int:
    """Return the number of a conversation's group."""
    return shard_of(conversation_id) % STORE_GROUPS


UNGROUPED_STORE_INBOX = ConsumerSpec(StreamName.IN, "message-store", _FOR_THE_STORE, keep=timedelta(0))
"""The store's only consumer in the release before. That release may run beside this one, and come back."""

# Its newest events show message-store what a power cut has lost. NATS syncs to disk every 2 minutes.
BRIDGE_OUTBOXES = tuple(
    ConsumerSpec(
        StreamName.OUT,
        f"xmpp-bridge-{shard}",
        (every_out(shard),),
        keep=timedelta(minutes=10),
        max_ack_pending=5_000,  # the bridge's slow lane has 3,000 of them, and two batches are on their way
        group="bridge",
    )
    for shard in range(DELIVERY_SHARDS)
)
"""One for each delivery shard, by its number."""

CONSUMERS = (*STORE_INBOXES, *BRIDGE_OUTBOXES)


class ClientPermissions(NamedTuple):
    """What one NATS user may publish and subscribe to; `responds`: it may answer requests."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    responds: bool = False


def inbox_prefix(user: str) -> str:
    """Return the prefix of a user's reply inboxes: nobody can listen to another user's replies."""
    return f"_INBOX_{user}"


def _consuming(spec: ConsumerSpec) -> tuple[str, ...]:
    name = f"{spec.stream}.{spec.durable}"
    verbs = ("MSG.NEXT", "INFO", "RESET", *(("UNPIN",) if spec.group else ()))
    api = tuple(f"$JS.API.CONSUMER.{verb}.{name}" for verb in verbs)
    return (*api, f"$JS.ACK.{name}.>", f"$JS.API.STREAM.PURGE.{spec.stream}", ALL_DEAD)


def _hearing(user: str, *subjects: str) -> tuple[str, ...]:
    return (f"{inbox_prefix(user)}.>", *subjects)


_OPERATED = (Rpc.OPERATIONS_REPORT, Rpc.OPERATIONS_TRAIL)  # every instance of every service answers them


PERMISSIONS: Mapping[str, ClientPermissions] = MappingProxyType(
    {
        "session-api": ClientPermissions(
            publish=(
                *(every_in(kind) for kind in SESSION_TYPES),
                subject_of_limits("session-api"),
                Rpc.USER_DEACTIVATED,  # the previous release asked itself, and may run beside this one
                Rpc.CLOCK,
            ),
            subscribe=_hearing(
                "session-api",
                subject_of_limits("session-api"),
                Rpc.SESSION_GET,
                Rpc.SESSION_CHANGES,
                Rpc.USER_MEET,
                Rpc.USER_DEACTIVATED,
                Rpc.AUDIT_NOTE,
                *_OPERATED,
            ),
            responds=True,
        ),
        "file-api": ClientPermissions(
            publish=(*_OF_FILES, subject_of_limits("file-api"), Rpc.MESSAGE_GRANTS, Rpc.USER_DEACTIVATED, Rpc.CLOCK),
            subscribe=_hearing("file-api", subject_of_limits("file-api"), Rpc.FILE_CHECK, *_OPERATED),
            responds=True,
        ),
        "message-store": ClientPermissions(
            publish=(
                ALL_OUT,
                *dict.fromkeys(
                    subject for spec in (*STORE_INBOXES, UNGROUPED_STORE_INBOX) for subject in _consuming(spec)
                ),
                *(f"$JS.API.STREAM.INFO.{spec.name}" for spec in STREAMS if spec.name is not StreamName.LEASES),
                f"$JS.API.STREAM.MSG.GET.{StreamName.OUT}",
                Rpc.USER_MEET,
                Rpc.USER_DEACTIVATED,
                Rpc.SESSION_GET,
                Rpc.SESSION_CHANGES,
                Rpc.FILE_CHECK,
                # for the operations view; a dead letter goes back to where it came from
                *_OPERATED,
                *_FOR_THE_STORE,
                f"$JS.API.STREAM.MSG.GET.{StreamName.DEAD}",
                f"$JS.API.STREAM.MSG.DELETE.{StreamName.DEAD}",
                Rpc.AUDIT_NOTE,
            ),
            subscribe=_hearing(
                "message-store",
                Rpc.MESSAGE_GRANTS,
                Rpc.MESSAGE_RECALLED,
                Rpc.MAILBOX_NOTE,
                Rpc.MAILBOX_LIVE,
                Rpc.MAILBOX_MISSED,
                Rpc.CLOCK,
                *_OPERATED,
            ),
            responds=True,
        ),
        "xmpp-bridge": ClientPermissions(
            publish=(
                *(every_in(kind) for kind in CLIENT_TYPES),
                *dict.fromkeys(subject for spec in BRIDGE_OUTBOXES for subject in _consuming(spec)),
                ALL_LEASES,
                f"$JS.API.STREAM.MSG.GET.{StreamName.LEASES}",
                ALL_ANSWERS,
                subject_of_limits("xmpp-bridge"),
                Rpc.USER_MEET,
                Rpc.USER_DEACTIVATED,
                Rpc.AUDIT_NOTE,
                Rpc.MESSAGE_RECALLED,
                Rpc.MAILBOX_NOTE,
                Rpc.MAILBOX_LIVE,
                Rpc.MAILBOX_MISSED,
                Rpc.CLOCK,
            ),
            subscribe=_hearing("xmpp-bridge", ALL_LEASES, ALL_ANSWERS, subject_of_limits("xmpp-bridge"), *_OPERATED),
            responds=True,
        ),
        "provision": ClientPermissions(publish=("$JS.API.>",), subscribe=_hearing("provision")),
    }
)
