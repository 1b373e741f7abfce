"""Writes docs/asyncapi.json, the AsyncAPI 3.0 document of the NATS subjects: `python -m tlim_protocol.asyncapi FILE`.

With `--check` it writes nothing, and fails if the file differs from the registries. The schemas are those of
tlim_protocol.events, and who sends or receives follows from the permissions of the NATS users (streams.PERMISSIONS).
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, product
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic.json_schema import models_json_schema

from tlim_protocol import events, leases, limits, mailboxes, operations
from tlim_protocol.docs import write_or_check
from tlim_protocol.events import Event
from tlim_protocol.identity import DELIVERY_SHARDS, SHARDS
from tlim_protocol.registry import AUDIT_TYPES, CLIENT_TYPES, SESSION_TYPES, MsgType
from tlim_protocol.streams import BRIDGE_OUTBOXES, PERMISSIONS, STORE_INBOXES, STREAMS, ConsumerSpec, inbox_prefix
from tlim_protocol.subjects import Rpc

Json = dict[str, Any]


class Channel(NamedTuple):
    """A subject with its parameters in braces, and what goes over it; several payloads: `kind` tells them apart."""

    address: str
    title: str
    payloads: Sequence[type[Event]]


class Request(NamedTuple):
    """A request and its answer; None: the payload is empty."""

    asks: type[Event] | None
    answers: type[Event] | None


CHANNELS = MappingProxyType(
    {
        "accepted": Channel(
            "tlim.in.{clientType}.{shard}", "messages that a bridge has accepted", [events.AcceptedMessage]
        ),
        "sessions": Channel("tlim.in.{sessionType}.{shard}", "changes of sessions", [events.SessionEvent]),
        "files": Channel("tlim.in.{fileType}.{shard}", "uploads and downloads, for audit", [events.FileEvent]),
        "out": Channel(
            "tlim.out.{messageType}.{deliveryShard}",
            "what is delivered, and answers to senders",
            [events.StoredMessage, events.RejectedMessage],
        ),
        "answers": Channel(
            "tlim.answer.{instance}",
            "what another bridge waits for; plain NATS",
            [events.StoredMessage, events.RejectedMessage],
        ),
        "shardLeases": Channel("tlim.lease.shard.{deliveryShard}", "which bridge has a shard", [leases.Lease]),
        "dead": Channel("tlim.dead.{deadType}", "messages that nobody can process, as they came", []),
        "bridges": Channel("tlim.lease.bridge.{instance}", "which bridges are there", [leases.BridgeBeat]),
        "limits": Channel(
            "tlim.limit.{limitedService}",
            "what the instances of a service have counted for rate limits; plain NATS",
            [limits.LimitCounts],
        ),
    }
)

REQUESTS = MappingProxyType(
    {
        Rpc.SESSION_GET: Request(events.SessionsQuestion, events.SessionsAnswer),
        Rpc.SESSION_CHANGES: Request(events.SessionChangesQuestion, events.SessionChanges),
        Rpc.USER_MEET: Request(events.UserMeet, events.UsersKnown),
        Rpc.USER_DEACTIVATED: Request(None, events.UsersDeactivated),
        Rpc.AUDIT_NOTE: Request(events.AuditNote, None),
        Rpc.FILE_CHECK: Request(events.FilesQuestion, events.FilesAnswer),
        Rpc.MESSAGE_GRANTS: Request(events.FileQuestion, events.FileVerdict),
        Rpc.MESSAGE_RECALLED: Request(events.SeqsQuestion, events.SeqsAnswer),
        Rpc.MAILBOX_NOTE: Request(mailboxes.MailboxNotes, mailboxes.MailboxNoted),
        Rpc.MAILBOX_LIVE: Request(mailboxes.LiveQuestion, mailboxes.LiveAnswer),
        Rpc.MAILBOX_MISSED: Request(mailboxes.MissedQuestion, mailboxes.MissedAnswer),
        Rpc.CLOCK: Request(None, events.Time),
        Rpc.OPERATIONS_REPORT: Request(None, operations.InstanceReport),
        Rpc.OPERATIONS_TRAIL: Request(operations.TrailQuestion, operations.TrailAnswer),
    }
)


def _types(kinds: Iterable[MsgType]) -> list[str]:
    return sorted(kind.value for kind in kinds)


PARAMETERS: MappingProxyType[str, Json] = MappingProxyType(
    {
        "clientType": {"enum": _types(CLIENT_TYPES), "description": "msg_type of what clients send"},
        "sessionType": {"enum": _types(SESSION_TYPES), "description": "msg_type of what session-api sends"},
        "fileType": {"enum": _types(AUDIT_TYPES), "description": "msg_type of what file-api sends"},
        "messageType": {"enum": _types([*CLIENT_TYPES, *SESSION_TYPES]), "description": "msg_type"},
        "deadType": {"description": "msg_type, or `unknown`"},
        "shard": {
            "enum": [str(shard) for shard in range(SHARDS)],
            "description": "crc32 of the conversation id, modulo the number of shards",
        },
        "deliveryShard": {
            "enum": [str(shard) for shard in range(DELIVERY_SHARDS)],
            "description": "crc32 of the receiver's user id, modulo the number of delivery shards",
        },
        "limitedService": {
            "enum": ["file-api", "session-api", "xmpp-bridge"],
            "description": "the service whose instances tell each other",
        },
        "instance": {"description": "a process of xmpp-bridge; a new name at every start"},
    }
)


def document() -> Json:
    """Return the document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "tlim, between the services",
            "version": "1",
            "description": "Subjects and payloads on NATS. Streams, consumers and users: docs/protocol.md.",
        },
        "defaultContentType": "application/json",
        "channels": {**dict(_channels()), **dict(_request_channels())},
        "operations": dict(sorted(_operations())),
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def _payloads() -> list[type[Event]]:
    asked = chain.from_iterable(REQUESTS.values())
    return list(
        dict.fromkeys(one for one in (*chain(*(row.payloads for row in CHANNELS.values())), *asked) if one is not None)
    )


def _schemas() -> Json:
    _, whole = models_json_schema(
        [(one, "validation") for one in _payloads()], ref_template="#/components/schemas/{model}"
    )
    return dict(whole["$defs"])


def _messages() -> Json:
    return {
        one.__name__: {
            "summary": (one.__doc__ or "").splitlines()[0],
            "payload": {"$ref": f"#/components/schemas/{one.__name__}"},
        }
        for one in _payloads()
    } | {"Empty": {"summary": "No payload.", "payload": {"type": "object", "maxProperties": 0}}}


def _messages_of(payloads: Iterable[type[Event] | None]) -> Json:
    names = ["Empty" if one is None else one.__name__ for one in payloads]
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _channels() -> Iterator[tuple[str, Json]]:
    for name, row in CHANNELS.items():
        parameters = {key: what for key, what in PARAMETERS.items() if f"{{{key}}}" in row.address}
        yield (
            name,
            {
                "address": row.address,
                "title": row.title,
                "parameters": parameters,
                "messages": _messages_of(row.payloads),
            },
        )


def _request_channels() -> Iterator[tuple[str, Json]]:
    for subject, row in REQUESTS.items():
        yield _name(subject), {"address": subject.value, "messages": _messages_of([row.asks])}
        reply = {"address": None, "title": f"answers to {subject}", "messages": _messages_of([row.answers])}
        yield f"{_name(subject)}Answer", reply


def _name(subject: Rpc) -> str:
    first, *others = subject.removeprefix("tlim.rpc.").split(".")
    return first + "".join(other.capitalize() for other in others)


def _operations() -> Iterator[tuple[str, Json]]:
    for user, allowed in PERMISSIONS.items():
        for name, row in CHANNELS.items():
            for action, patterns in (("send", allowed.publish), ("receive", _received(user, allowed.subscribe))):
                if any(_fits(pattern, row.address) for pattern in patterns):
                    yield _operation(user, action, name)
        for action, subjects in (("send", allowed.publish), ("receive", allowed.subscribe)):
            for subject in REQUESTS:
                if subject in subjects:
                    name, operation = _operation(user, action, _name(subject))
                    yield name, {**operation, "reply": {"channel": {"$ref": f"#/channels/{_name(subject)}Answer"}}}


def _received(user: str, subscribed: Sequence[str]) -> list[str]:
    """Return the subjects that a user hears of: those of its subscriptions and of its consumers."""
    consumers = {"message-store": STORE_INBOXES, "xmpp-bridge": BRIDGE_OUTBOXES}.get(user, ())
    consumed = chain.from_iterable(_consumed(spec) for spec in consumers)
    return [*(subject for subject in subscribed if not subject.startswith(inbox_prefix(user))), *consumed]


def _consumed(spec: ConsumerSpec) -> Iterator[str]:
    """Yield what a consumer reads: a filter for all types means only those types that its stream keeps."""
    (stream,) = (stream for stream in STREAMS if stream.name is spec.stream)
    for kept, read in product(stream.subjects, spec.filter_subjects):
        pairs = list(zip(kept.split("."), read.split("."), strict=False))
        yield read if kept.endswith(">") else ".".join(one if other == "*" else other for one, other in pairs)


def _fits(pattern: str, address: str) -> bool:
    """Tell whether some subject of the address is permitted by a pattern of NATS."""
    allowed, parts = pattern.split("."), address.split(".")
    for place, part in enumerate(allowed):
        if part == ">":
            return True
        if place >= len(parts):
            return False
        values = PARAMETERS[parts[place][1:-1]].get("enum") if parts[place].startswith("{") else [parts[place]]
        if part != "*" and values is not None and part not in values:
            return False
    return len(allowed) == len(parts)


def _operation(user: str, action: str, channel: str) -> tuple[str, Json]:
    return f"{user}.{action}.{channel}", {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "tags": [{"name": user}],
    }


if __name__ == "__main__":
    sys.exit(write_or_check(sys.argv[1:], json.dumps(document(), indent=1, ensure_ascii=False) + "\n"))
