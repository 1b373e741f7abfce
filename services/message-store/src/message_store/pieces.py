"""How an event goes to TLIM_OUT: in pieces, one for each delivery shard with people that it concerns."""

from collections.abc import Callable, Iterable, Iterator

from tlim_protocol.events import OutEvent, RejectedMessage, StoredMessage
from tlim_protocol.identity import delivery_shard
from tlim_protocol.lenient import as_it_is, write_json
from tlim_protocol.registry import REGISTRY
from tlim_protocol.subjects import out_message_id, piece_message_id, subject_of_shard, subject_out
from tlim_runtime.broker import Outgoing
from tlim_runtime.tracing import NO_HEADERS, Headers

HEADERS = 8 * 1024
"""Bytes kept free for the headers, because NATS counts them in the payload limit. The message id in them has two ids of
64 letters, each up to 12 bytes long."""

_NOT_FOR_THE_SENDER = {"reply_to": None, "stanza_id": None, "tells_sender": False, "via": None}


MAX_BYTES = 32 * 1024 * 1024
"""Events are written out in portions of about this size. A batch has up to 16 MiB, and each body of it may go to all
shards; the names of 10,000 receivers come with each message to a large group."""


def written_out(
    events: Iterable[OutEvent], max_payload: int, headers_of: Callable[[OutEvent], Headers]
) -> Iterator[list[Outgoing]]:
    """Yield the events as they go to TLIM_OUT, in order, in portions that are written when they are asked for."""
    portion: list[Outgoing] = []
    size = 0
    for event in events:
        pieces = outgoing(event, max_payload, headers_of(event))
        portion += pieces
        size += sum(len(piece.payload) for piece in pieces)
        if size >= MAX_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def outgoing(event: OutEvent, max_payload: int, headers: Headers = NO_HEADERS) -> list[Outgoing]:
    """Return an event as it goes to TLIM_OUT: its pieces (StoredMessage), of which the sender's is the first.

    The body is written once for all pieces. 10,000 receivers with long names and a body of 6 MB are together more than
    NATS takes, so the receivers of a shard may need several pieces.
    """
    if isinstance(event, RejectedMessage):
        return [Outgoing(subject_out(event.msg_type, event.sender), event.to_bytes(), out_message_id(event), headers)]
    msg_type, sender = event.envelope.msg_type, event.envelope.msg_from
    if not event.recipients:
        return [Outgoing(subject_out(msg_type, sender), event.to_bytes(), out_message_id(event), headers)]
    whole_id, shards = out_message_id(event), _by_shard(event)
    writer, last = _Writer(event, max_payload - HEADERS), [*shards][-1]
    return [
        Outgoing(subject_of_shard(msg_type, shard), payload, piece_message_id(whole_id, shard, part), headers)
        for place, (shard, people) in enumerate(shards.items())
        for payload, part in writer.pieces(people, is_first=place == 0, is_last=shard == last)
    ]


def _by_shard(event: StoredMessage) -> dict[int, list[str]]:
    """Return the recipients by their shards, with the sender's shard first if the sender's devices hear of it."""
    told = event.reply_to is not None or (event.tells_sender and REGISTRY[event.envelope.msg_type].sent_by_clients)
    shards: dict[int, list[str]] = {delivery_shard(event.envelope.msg_from): []} if told else {}
    for user_id in event.recipients:
        shards.setdefault(delivery_shard(user_id), []).append(user_id)
    return shards


class _Writer:
    """Writes the pieces of an event, each of at most `limit` bytes if there are several recipients to share."""

    def __init__(self, event: StoredMessage, limit: int) -> None:
        self._limit = limit
        self._first = event.model_dump(by_alias=True)
        self._first["envelope"] = as_it_is(write_json(self._first["envelope"]))
        self._first["reach"] = len(event.recipients)
        self._others = self._first | _NOT_FOR_THE_SENDER

    def pieces(
        self, people: list[str], *, is_first: bool, is_last: bool, is_part: bool = False
    ) -> Iterator[tuple[bytes, list[str]]]:
        """Yield the piece for the people of a shard, or its halves; with the people in it if they are a part of all."""
        values = {"recipients": people, "is_last": is_last}
        payload = write_json((self._first if is_first else self._others) | values).encode()
        if len(payload) <= self._limit or len(people) < 2:
            yield payload, people if is_part else []
            return
        middle = len(people) // 2
        yield from self.pieces(people[:middle], is_first=is_first, is_last=False, is_part=True)
        yield from self.pieces(people[middle:], is_first=False, is_last=is_last, is_part=True)
