"""How a message on the wire, or in an answer over HTTP, becomes an item of the books."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import REGISTRY, Effect, MsgType

from tests.torture.book import Item, Kind, between

_KINDS = {MsgType.RECEIVED: Kind.RECEIVED, MsgType.READ: Kind.READ, MsgType.RECALL: Kind.RECALL}


def item_of(envelope: Envelope, seq: int | None = None) -> Item:
    """Return what an envelope says."""
    element = envelope.body[0] if envelope.body else {}
    group = element.get("session_id") or envelope.session_id
    conversation = group or between(envelope.msg_from, envelope.msg_to or envelope.msg_from)
    item = Item(envelope.msg_id, envelope.msg_from, _kind(envelope.msg_type), conversation, seq)
    return _with_body(item, envelope.body)


def item_read(user_id: str, answer: Mapping[str, Any], conversation: str = "") -> Item:
    """Return an item of sync, or of the history of a conversation, as this person reads it."""
    name = conversation or conversation_read(user_id, answer["conversation"])
    kind, recalled = _kind(MsgType(answer["msg_type"])), answer["recalled"]
    item = Item(answer["msg_id"], answer["from"], kind, name, answer["seq"], recalled=recalled)
    return _with_body(item, answer["body"])


def conversation_read(user_id: str, name: str) -> str:
    """Return the name of a conversation for everybody, from the name that this person reads."""
    is_group = "-" in name  # the people of a run have no hyphens in their names
    return name if is_group else between(user_id, name)


def _kind(msg_type: MsgType) -> Kind:
    return _KINDS.get(msg_type) or (Kind.NOTICE if REGISTRY[msg_type].effect is Effect.NOTICE else Kind.TEXT)


def _with_body(item: Item, body: list[dict[str, Any]]) -> Item:
    about = tuple(str(element["msg_id"]) for element in body) if item.kind in _KINDS.values() else ()
    named = {Kind.TEXT: "text", Kind.NOTICE: "session_name"}.get(item.kind)
    text = str(body[0].get(named, "")) if named and body else ""
    readers = frozenset(one["user_id"] for element in body for one in element.get("readers", ()))
    return replace(item, text=text, about=about, readers=readers)
