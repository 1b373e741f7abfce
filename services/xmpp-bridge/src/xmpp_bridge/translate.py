"""Pure translation between XMPP stanzas and what the services say; golden files in tests/golden show every case."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple
from xml.etree import ElementTree as ET

from tlim_protocol.characters import is_plain_text
from tlim_protocol.envelope import MAX_STANZA_BYTES, Envelope, write_envelope
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import OutEvent, RejectedMessage, StoredMessage
from tlim_protocol.notices import Element, long_form, newcomers, short_form
from tlim_protocol.registry import REGISTRY, Effect
from tlim_protocol.stanzas import CARBONS_NS, DELAY_NS, FORWARD_NS, HINTS_NS, TLIM_NS, Tag
from tlim_runtime.errors import TooManyRequests

from xmpp_bridge.markup import STANZAS_NS, escape_text, id_attribute, quote

NO_JID = "/"
"""A `reply_to` that begins like this belongs to an HTTP request that waits for the answer. It is no JID, because its
domain would be empty."""

_COMPONENT = "{jabber:component:accept}"
_CLIENT = "{jabber:client}"

MESSAGE = f"{_COMPONENT}message"
IQ = f"{_COMPONENT}iq"
PRESENCE = f"{_COMPONENT}presence"

_INNER = f"{_CLIENT}message"
_FORWARDED = f"{{{FORWARD_NS}}}forwarded"
_MAX_LOCATION = 20  # enough for `web` and `mobile`; every stored row keeps it, so it is short
_PASSING = {ErrorCode.UNAVAILABLE, ErrorCode.TOO_MANY_REQUESTS}  # the same message may be accepted later
_NO_STORE = f"<no-store xmlns='{HINTS_NS}'/>"
_NO_CARBONS = f"<private xmlns='{CARBONS_NS}'/>"  # XEP-0280 section 9
_LONGEST_ESCAPE = 6  # `&quot;`: no character takes more bytes on the wire


class Accept(StrEnum):
    """Which of the two ways in the bridge trusts (docs/wire-protocol.md, "Addresses and identity")."""

    DIVERTED = "diverted"
    ADDRESSED = "addressed"
    BOTH = "both"


class BridgeAddresses(NamedTuple):
    """The two names that all translation needs: the users' domain and the component's own."""

    domain: str
    component: str


class Arrival(NamedTuple):
    """A tlim message whose sender the XMPP server vouches for; nothing in it has been checked yet."""

    sender: str  # localpart as the XMPP server wrote it
    reply_to: str  # full JID
    stanza_id: str  # empty when the client gave none
    location: str
    text: str | None  # of `<body>`
    size: int  # of the stanza, estimated, in characters
    is_oversized: bool  # the stanza is over MAX_STANZA_BYTES


def read_arrival(stanza: ET.Element, addresses: BridgeAddresses, accept: Accept) -> Arrival | None:
    """Return the tlim message in a `<message>` of the component's stream, or None when there is none to be trusted.

    A diverted message (XEP-0297) is trusted only when its outer `from` is exactly the bare domain: no client can have
    that address. An addressed message is trusted only when its `from` is a user of the domain. `accept` says which of
    the two ways the XMPP server is set up for. This matters because a server without our module may send, in its own
    name, text that a client made up.

    The stanza's own `to` is not compared with the envelope's `to`. The JSON decides where the message goes, and the
    right to write to somebody does not depend on the way to the bridge
    (docs/wire-protocol.md, "Addresses and identity").

    An error (type='error') is never a message: answering it would make a loop.
    """
    if stanza.get("type") == "error":
        return None
    is_diverted = stanza.get("from") == addresses.domain
    if accept not in {Accept.BOTH, Accept.DIVERTED if is_diverted else Accept.ADDRESSED}:
        return None
    if not is_diverted:
        return _read_message(stanza, _COMPONENT, addresses)
    # not as one path: ElementTree would take it apart in Python, for each message
    inner = [message for forwarded in stanza.findall(_FORWARDED) for message in forwarded.findall(_INNER)]
    if len(inner) != 1 or inner[0].get("type") == "error":
        return None
    return _read_message(inner[0], _CLIENT, addresses)


def _read_message(message: ET.Element, namespace: str, addresses: BridgeAddresses) -> Arrival | None:
    mark = message.find(Tag.TLIM.qualified)
    sender_jid = message.get("from", "")
    localpart = read_user(sender_jid, addresses)
    if mark is None or localpart is None:
        return None
    location = mark.get("location", "")
    size = _size(message)
    return Arrival(
        sender=localpart,
        reply_to=sender_jid,
        stanza_id=message.get("id", ""),
        location=location if len(location) <= _MAX_LOCATION and is_plain_text(location) else "",
        text=message.findtext(f"{namespace}body"),
        size=size,
        is_oversized=_is_oversized(message, size),
    )


def read_user(jid: str, addresses: BridgeAddresses) -> str | None:
    """Return the localpart of a user's full or bare JID, as the server wrote it. None: the JID is of another domain.

    In a stanza's own `from` this can be trusted: the XMPP server stamps it, and a client cannot forge it.
    """
    localpart, _, domain = jid.partition("/")[0].partition("@")
    return localpart if localpart and domain.lower() == addresses.domain else None


def _size(message: ET.Element) -> int:
    return sum(
        2 * len(element.tag) + 5 + len(element.text or "") + len(element.tail or "") + len(str(element.attrib))
        for element in message.iter()
    )


def _is_oversized(message: ET.Element, size: int) -> bool:
    # The exact size is known only when the stanza is written again, and that costs more than everything else here. So
    # only a stanza that could reach the limit is measured: one that would be too long if each character took the most
    # bytes it can.
    if size * _LONGEST_ESCAPE <= MAX_STANZA_BYTES:
        return False
    try:
        return len(ET.tostring(message, encoding="utf-8", xml_declaration=False)) > MAX_STANZA_BYTES
    except RecursionError:  # about a thousand levels deep: no real client sends that
        return True


def write_event(
    event: OutEvent, addresses: BridgeAddresses, accept: Accept, *, is_kept: bool = True, is_late: bool = False
) -> Iterator[str]:
    """Yield the stanzas of an out event: what it brings to other devices, then the answer to the device that sent it.

    `is_kept` and `is_late` are those of `write_deliveries`.
    """
    if isinstance(event, StoredMessage):
        yield from write_deliveries(event, addresses, is_kept=is_kept, is_late=is_late)
        yield from write_copy(event, addresses, accept)
    yield from write_answer(event, addresses)


def write_deliveries(
    event: StoredMessage,
    addresses: BridgeAddresses,
    *,
    is_kept: bool,
    is_late: bool = False,
    to: Iterable[str] | None = None,
) -> Iterator[str]:
    """Yield a delivery for each recipient, or for those of them in `to`, which is read one by one.

    `is_kept`: the XMPP server keeps deliveries for people who are away. If not, it is told so (XEP-0334). `is_late`:
    newer messages may have come before; then the time of storing is said (XEP-0203).
    """
    if not event.recipients:
        return
    delay = _delay(event, addresses) if is_late else ""
    hints = delay + (_no_store(event.envelope) if is_kept else _NO_STORE)
    write = _write_notices if REGISTRY[event.envelope.msg_type].effect is Effect.NOTICE else _write_deliveries
    yield from write(event, event.recipients if to is None else to, addresses, hints)


def write_copy(event: StoredMessage, addresses: BridgeAddresses, accept: Accept) -> Iterator[str]:
    """Yield what the server's module makes carbons of, for the sender's other devices.

    A server without our module has already made copies when the message came in: then nothing comes.
    """
    is_copied = event.is_news and event.tells_sender and REGISTRY[event.envelope.msg_type].sent_by_clients
    if is_copied and accept is not Accept.ADDRESSED:
        yield _write_sent(event, _sending_device(event), addresses)


def write_answer(event: OutEvent, addresses: BridgeAddresses) -> Iterator[str]:
    """Yield `stored` or an error for the device that sent the message, if one waits for it."""
    hears = _sending_device(event)
    if hears is None:
        return
    if isinstance(event, RejectedMessage):
        yield write_error(read_refusal(event), hears, event.stanza_id, addresses)
    else:
        yield _write_stored(event, hears, addresses)


def _sending_device(event: OutEvent) -> str | None:
    return event.reply_to if event.reply_to is not None and not event.reply_to.startswith(NO_JID) else None


def read_refusal(event: RejectedMessage) -> TlimError:
    """Return the store's refusal of a message as the error that its sender gets."""
    return TlimError(event.code, event.detail, field=event.field, msg_id=event.msg_id)


def write_caught_up(user_id: str, up_to: int, addresses: BridgeAddresses, *, is_cut: bool) -> str:
    """Return the mark behind what a person has missed: all of it up to the seq `up_to` has come.

    `is_cut`: the oldest was left out, and is in sync. A headline goes to all devices that are there, and is never kept.
    """
    more = "true" if is_cut else "false"
    return (
        f"<message type='headline' from='{addresses.domain}' to={quote(f'{user_id}@{addresses.domain}')}>"
        f"<{Tag.CAUGHT_UP} xmlns='{TLIM_NS}' seq='{up_to}' more='{more}'/>{_NO_STORE}</message>"
    )


def _delay(event: StoredMessage, addresses: BridgeAddresses) -> str:
    stored_at = datetime.fromtimestamp(event.stored_at / 1_000, UTC)
    stamp = stored_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")  # XEP-0082 section 3.2
    return f"<delay xmlns='{DELAY_NS}' from='{addresses.domain}' stamp='{stamp}'/>"


def _write_deliveries(event: StoredMessage, to: Iterable[str], addresses: BridgeAddresses, hints: str) -> Iterator[str]:
    # Only the receiver differs between the stanzas, so the rest is written once. A group may have 10,000 members. It
    # stays in memory until the last of them has it, so it is kept as UTF-8: one emoji makes a text four times as large.
    sender, rest = quote(f"{event.envelope.msg_from}@{addresses.domain}"), _content(event, hints).encode()
    for recipient in to:
        yield _delivery(sender, recipient, rest, addresses)


def _write_notices(event: StoredMessage, to: Iterable[str], addresses: BridgeAddresses, hints: str) -> Iterator[str]:
    # A notice comes from the server itself, because only the server can send one. The envelope names the user that
    # caused it.
    envelope, sender = event.envelope, quote(addresses.domain)
    added = frozenset[str]().union(*map(newcomers, envelope.body))
    forms = (long_form, short_form)
    long, short = (_content(_with_body(event, map(form, envelope.body)), hints).encode() for form in forms)
    for recipient in to:
        yield _delivery(sender, recipient, long if recipient in added else short, addresses)


def _with_body(event: StoredMessage, body: Iterable[Element]) -> StoredMessage:
    return event.model_copy(update={"envelope": event.envelope.model_copy(update={"body": list(body)})})


def _delivery(sender: str, recipient: str, rest: bytes, addresses: BridgeAddresses) -> str:
    return f"<message type='chat' from={sender} to={quote(f'{recipient}@{addresses.domain}')}{rest.decode()}"


def _content(event: StoredMessage, hints: str) -> str:
    envelope = event.envelope
    return (
        f" id={quote(envelope.msg_id)}><body>{escape_text(write_envelope(envelope))}</body>"
        f"<{Tag.TLIM} xmlns='{TLIM_NS}' location='server' seq='{event.seq}' time='{event.stored_at}'/>"
        f"{_recalled(envelope)}{hints}</message>"
    )


def _write_sent(event: StoredMessage, sending_device: str | None, addresses: BridgeAddresses) -> str:
    """Return the stanza that the XMPP server's module turns into carbons (XEP-0280) for the sender's other devices.

    The stored message is wrapped (XEP-0297), as the module wraps what it diverts. It comes from the component's own
    address, which no client can have. A message of an HTTP request has no sending device: then all devices of the
    sender get the copy.
    """
    envelope = event.envelope
    sender = quote(sending_device or f"{envelope.msg_from}@{addresses.domain}")
    receiver = quote(f"{envelope.msg_to}@{addresses.domain}" if envelope.msg_to else addresses.domain)
    rest = _content(event, _no_store(envelope))
    return (
        f"<message type='headline' from={quote(addresses.component)} to={sender}><forwarded xmlns='{FORWARD_NS}'>"
        f"<message xmlns='jabber:client' type='chat' from={sender} to={receiver}{rest}</forwarded></message>"
    )


def _recalled(envelope: Envelope) -> str:
    # These elements are for the XMPP server: it drops its undelivered copies of the messages they name
    # (deploy/ejabberd, deploy/prosody).
    if REGISTRY[envelope.msg_type].effect is not Effect.RECALL:
        return ""
    msg_ids = dict.fromkeys(element.get("msg_id") for element in envelope.body)
    return "".join(f"<{Tag.RECALLED} xmlns='{TLIM_NS}' msg_id={quote(msg_id)}/>" for msg_id in msg_ids if msg_id)


def _no_store(envelope: Envelope) -> str:
    # A receipt waits for nobody: sync and the ledger of the message have it. The server's storage for people who are
    # away has an end, and receipts would fill it.
    return _NO_STORE if REGISTRY[envelope.msg_type].effect is Effect.RECEIPT else ""


def _write_stored(event: StoredMessage, reply_to: str, addresses: BridgeAddresses) -> str:
    # A headline goes to the addressed resource or nowhere (RFC 6121 section 8.5). Other devices have no use for it.
    msg_id = quote(event.envelope.msg_id)
    return (
        f"<message type='headline' from='{addresses.domain}' to={quote(reply_to)}{id_attribute(event.stanza_id)}>"
        f"<{Tag.STORED} xmlns='{TLIM_NS}' msg_id={msg_id} seq='{event.seq}' time='{event.stored_at}'/>"
        f"{_NO_STORE}</message>"
    )


def write_error(error: TlimError, reply_to: str, stanza_id: str, addresses: BridgeAddresses) -> str:
    """Return the refusal for the sender, readable for people and machines (docs/wire-protocol.md, "Refusals").

    Our `<error>` has a `type` and a condition for the sake of Smack. Smack reads every `<error>` in a message as a
    stanza error (RFC 6120 section 8.3.2), and breaks off the connection when one of the two is missing. Only the device
    that sent the message gets the refusal, and the server keeps none for a device that has gone.
    """
    later = str(error.retry_after) if isinstance(error, TooManyRequests) else None
    named = {"code": error.code.value, "msg_id": error.msg_id, "field": error.field, "retry_after": later}
    attributes = "".join(f" {name}={quote(value)}" for name, value in named.items() if value is not None)
    kind, condition = ("wait", "resource-constraint") if error.code in _PASSING else ("modify", "not-acceptable")
    return (
        f"<message type='chat' from='{addresses.domain}' to={quote(reply_to)}{id_attribute(stanza_id)}>"
        f"<body>{error.code.value}</body><{Tag.TLIM} xmlns='{TLIM_NS}' location='server'/>"
        f"<{Tag.ERROR} xmlns='{TLIM_NS}'{attributes} type='{kind}'>{escape_text(error.detail)}"
        f"<{condition} xmlns='{STANZAS_NS}'/></{Tag.ERROR}>{_NO_CARBONS}{_NO_STORE}</message>"
    )
