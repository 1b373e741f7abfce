"""Requests between the bridge and others (`<iq>`): pings, discovery, tokens; golden files in tests/golden/iq."""

from datetime import timedelta
from enum import Enum
from xml.etree import ElementTree as ET

from tlim_protocol.stanzas import TLIM_NS, Tag

from xmpp_bridge.markup import STANZAS_NS, escape_text, id_attribute, quote
from xmpp_bridge.translate import BridgeAddresses

_DISCO_INFO = "http://jabber.org/protocol/disco#info"
_DISCO_ITEMS = "http://jabber.org/protocol/disco#items"
_PING = "urn:xmpp:ping"
_TOKEN = Tag.TOKEN.qualified

TOKEN_FEATURE = f"{TLIM_NS}#token"
"""The feature by which service discovery announces that `<token/>` is answered."""


class Refusal(Enum):
    """How a request is refused: the error's type and condition (RFC 6120 section 8.3)."""

    NOT_SUPPORTED = ("cancel", "service-unavailable")
    FORBIDDEN = ("auth", "forbidden")
    TOO_OFTEN = ("wait", "resource-constraint")
    NOT_NOW = ("wait", "recipient-unavailable")


def write_ping(ping_id: str, addresses: BridgeAddresses) -> str:
    """Return an XEP-0199 ping from the component to the domain."""
    return (
        f"<iq type='get' id={quote(ping_id)} from='{addresses.component}' to='{addresses.domain}'>"
        f"<ping xmlns='{_PING}'/></iq>"
    )


def read_pong(iq: ET.Element, addresses: BridgeAddresses) -> str | None:
    """Return the id of the ping that this `<iq>` answers, or None; an error is as good an answer as a result."""
    is_answer = iq.get("type") in {"result", "error"} and iq.get("from") == addresses.domain
    return iq.get("id") if is_answer else None


def answer_iq(iq: ET.Element) -> str | None:
    """Return the answer to a request: disco#info, disco#items (XEP-0030) and ping (XEP-0199), else service-unavailable.

    None for what is no request. RFC 6120 section 8.2.3 asks for an answer to every get and set.
    """
    kind = iq.get("type", "")
    if iq.get("from") is None or kind not in {"get", "set"}:
        return None
    payload = _DISCOVERABLE.get((kind, iq[0].tag, iq[0].get("node"))) if len(iq) else None
    return refuse_iq(iq, Refusal.NOT_SUPPORTED) if payload is None else _answer(iq, "result", payload)


def refuse_iq(iq: ET.Element, refusal: Refusal) -> str:
    """Return the error that answers a request."""
    kind, condition = refusal.value
    return _answer(iq, "error", f"<error type='{kind}'><{condition} xmlns='{STANZAS_NS}'/></error>")


def is_token_request(iq: ET.Element) -> bool:
    """Tell whether somebody asks for a token: `<iq type='get'><token xmlns='im.itonglian.com'/></iq>`."""
    return iq.get("type") == "get" and iq.get("from") is not None and len(iq) > 0 and iq[0].tag == _TOKEN


def write_token(iq: ET.Element, token: str, lifetime: timedelta) -> str:
    """Return the answer to a token request."""
    seconds = int(lifetime.total_seconds())
    return _answer(
        iq, "result", f"<{Tag.TOKEN} xmlns='{TLIM_NS}' expires_in='{seconds}'>{escape_text(token)}</{Tag.TOKEN}>"
    )


def _answer(iq: ET.Element, outcome: str, payload: str) -> str:
    addressed = f" from={quote(iq.get('to', ''))} to={quote(iq.get('from', ''))}{id_attribute(iq.get('id'))}"
    return f"<iq type='{outcome}'{addressed}>{payload}</iq>"


_FEATURES = "".join(
    f"<feature var='{feature}'/>" for feature in (_DISCO_INFO, _DISCO_ITEMS, _PING, TLIM_NS, TOKEN_FEATURE)
)
_IDENTITY = "<identity category='component' type='generic' name='tlim bridge'/>"
_DISCOVERABLE: dict[tuple[str, str, str | None], str] = {
    ("get", f"{{{_DISCO_INFO}}}query", None): f"<query xmlns='{_DISCO_INFO}'>{_IDENTITY}{_FEATURES}</query>",
    ("get", f"{{{_DISCO_ITEMS}}}query", None): f"<query xmlns='{_DISCO_ITEMS}'/>",
    ("get", f"{{{_PING}}}ping", None): "",
}
