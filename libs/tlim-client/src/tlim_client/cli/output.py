"""Writes received messages as lines for people, or as JSON for programs. Pure functions."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import REGISTRY, MsgType

from tlim_client.inbox import CaughtUp, Delivered, Plain, Received


def printable(text: str) -> str:
    """Return `text` without control characters: the text of other people must not control this terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def clock(milliseconds: object) -> str:
    """Return the local time of an instant in epoch milliseconds, or dashes when the value is no such instant."""
    try:
        instant = datetime.fromtimestamp(int(str(milliseconds)) / 1000, UTC).astimezone()
    except (ValueError, OverflowError, OSError):
        return "--:--:--"
    same_day = instant.date() == datetime.now(UTC).astimezone().date()
    return instant.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M")


def line_of_envelope(envelope: Mapping[str, Any], time: object) -> str:
    """Return one line for a message: `14:03:11 bob: hi`; `envelope` has the wire's names."""
    return f"{clock(time)} {printable(str(envelope['from']))}: {printable(_content(envelope))}"


def line_of_conversation(conversation: Mapping[str, Any]) -> str:
    """Return one line for an entry of the list of conversations: `bob (2 unread)  14:03:11 bob: hi`."""
    name, unread, last = conversation["session_name"], conversation["unread"], conversation["last"]
    title = f"{conversation['conversation']}{f' {name}' if name else ''}"
    news = f" ({unread}{'+' if conversation['unread_capped'] else ''} unread)" if unread else ""
    return f"{printable(title)}{news}  {line_of_envelope(last, last['stored_at']) if last else ''}".rstrip()


def line_of_event(event: Received) -> str | None:
    """Return one line for a message, plain chat, or the end of what was missed. Return None for every other event."""
    match event:
        case Delivered(envelope, time=time):
            return line_of_envelope(_wire(envelope), time or envelope.msg_time)
        case Plain(from_jid, body):
            return f"{printable(from_jid.partition('/')[0])} (plain XMPP): {printable(body)}"
        case CaughtUp(more=False):
            return "Caught up: what follows is new."
        case CaughtUp():
            return "Caught up, but older messages or many receipts are in tlim sync only. What follows is new."
    return None


def json_of_event(event: Received) -> dict[str, Any] | None:
    """Return the JSON object for what `line_of_event` has a line for. Return None for every other event."""
    match event:
        case Delivered(envelope, seq=seq, time=time, delayed=delayed):
            return {"kind": "message", "seq": seq, "stored_at": time, "delayed": delayed, **_wire(envelope)}
        case Plain(from_jid, body):
            return {"kind": "plain", "from": from_jid, "body": body}
        case CaughtUp(seq, more):
            return {"kind": "caught-up", "seq": seq, "more": more}
    return None


def json_line(value: object) -> str:
    """Return `value` as JSON on one line, in readable Unicode."""
    return json.dumps(value, ensure_ascii=False)


def size(count: int) -> str:
    """Return a number of bytes for a person: `512 B`, `1.5 MiB`."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def _content(envelope: Mapping[str, Any]) -> str:
    kind = REGISTRY[MsgType(envelope["msg_type"])]
    elements = envelope["body"]
    if envelope.get("recalled"):
        return "[recalled]"
    if not kind.is_chat:
        return f"[{kind.title}] {' '.join(map(_subject, elements))}".rstrip()
    if kind.carries_file:
        files = " ".join(str(element["file_id"]) for element in elements)
        return f"[{kind.title}] {files}"
    texts = [str(element["text"]) for element in elements if "text" in element]
    return "\n".join(texts) if texts else f"[{kind.title}] {json_line(elements)}"


def _subject(element: Mapping[str, Any]) -> str:
    """Return the msg_id in an element of a receipt or recall, or what a notice says of its session.

    A receipt of many readers: `m1 (bob carol, 302 people)`. A notice: `s1 Project X +carol -bob (3 people)`, where a
    number stands for people whom it does not name.
    """
    if "readers" in element:
        names = " ".join(str(reader["user_id"]) for reader in element["readers"])
        return f"{element['msg_id']} ({f'{names}, ' if names else ''}{element['readers_count']} people)"
    if "msg_id" in element:
        return str(element["msg_id"])
    count = element.get("subscribers_count")
    parts = [
        element.get("session_id"),
        element.get("session_name"),
        *_people("+", "added", element),
        *_people("-", "removed", element),
        None if count is None else f"({count} people)",
    ]
    return " ".join(str(part) for part in parts if part)


def _people(sign: str, name: str, element: Mapping[str, Any]) -> list[str]:
    count = element.get(f"{name}_count")
    return [f"{sign}{count}"] if count else [f"{sign}{one['user_id']}" for one in element.get(name, ())]


def _wire(envelope: Envelope) -> dict[str, Any]:
    return envelope.model_dump(mode="json", by_alias=True, exclude_none=True)
