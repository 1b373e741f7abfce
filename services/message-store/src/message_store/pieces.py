"""How an event goes to TLIM_OUT: in pieces, one for each delivery shard with people that it concerns."""

from collections.abc import Iterator
from typing import Any

from tlim_protocol.events import OutEvent, RejectedMessage, StoredMessage
from tlim_protocol.identity import delivery_shard
from tlim_protocol.lenient import as_it_is, write_json
from tlim_protocol.registry import REGISTRY
from tlim_protocol.subjects import out_message_id, piece_message_id, subject_of_shard, subject_out
from tlim_runtime.broker import Outgoing

HEADERS = 8 * 1024
"""Bytes kept free for the headers, because NATS counts them in the payload limit. The message id in them has two ids of
64 letters, each up to 12 bytes long."""

_NOT_FOR_THE_SENDER = {"reply_to": None, "stanza_id": None, "received_at": None, "tells_sender": False, "via": None}


def outgoing(event: OutEvent, max_payload: int) -> list[Outgoing]:
    """Return an event as it goes to TLIM_OUT: its pieces (StoredMessage), of which the sender's is the first.

    The body is written once for all pieces. 10,000 receivers with long names and a body of 6 MB are together more than
    NATS takes, so the receivers of a shard may need several pieces.
    """
    if isinstance(event, RejectedMessage):
        return [Outgoing(subject_out(event.msg_type, event.sender), event.to_bytes(), out_message_id(event))]
    msg_type, sender = event.envelope.msg_type, event.envelope.msg_from
    if not event.recipients:
        return [Outgoing(subject_out(msg_type, sender), event.to_bytes(), out_message_id(event))]
    whole = event.model_dump(by_alias=True)
    whole |= {"envelope": as_it_is(write_json(whole["envelope"])), "reach": len(event.recipients)}
    room = max_payload - HEADERS - len(write_json({**whole, "recipients": []}).encode())
    shards = _by_shard(event)
    cuts = [(shard, part) for shard, people in shards.items() for part in _fitting(people, room)]
    return [
        Outgoing(
            subject_of_shard(msg_type, shard),
            _written(whole, part, is_first=place == 0, is_last=place == len(cuts) - 1),
            piece_message_id(out_message_id(event), shard, () if part is shards[shard] else part),
        )
        for place, (shard, part) in enumerate(cuts)
    ]


def _by_shard(event: StoredMessage) -> dict[int, list[str]]:
    """Return the recipients by their shards, with the sender's shard first if the sender's devices hear of it."""
    told = event.reply_to is not None or (event.tells_sender and REGISTRY[event.envelope.msg_type].sent_by_clients)
    shards: dict[int, list[str]] = {delivery_shard(event.envelope.msg_from): []} if told else {}
    for user_id in event.recipients:
        shards.setdefault(delivery_shard(user_id), []).append(user_id)
    return shards


def _fitting(people: list[str], room: int) -> Iterator[list[str]]:
    """Yield the people as they are, or halved as often as their names need it to fit into `room` bytes."""
    if len(people) < 2 or len(write_json(people).encode()) <= room:
        yield people
        return
    middle = len(people) // 2
    for half in (people[:middle], people[middle:]):
        yield from _fitting(half, room)


def _written(whole: dict[str, Any], recipients: list[str], *, is_first: bool, is_last: bool) -> bytes:
    changes = {"recipients": recipients, "is_last": is_last}
    return write_json({**whole, **({} if is_first else _NOT_FOR_THE_SENDER), **changes}).encode()
