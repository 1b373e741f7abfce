"""Requests between the bridge and others (`<iq>`): pings, service discovery; golden files in tests/golden/iq."""

from xml.etree import ElementTree as ET

from xmpp_bridge.markup import STANZAS_NS, id_attribute, quote
from xmpp_bridge.translate import TLIM_NS, Addresses

_DISCO_INFO = "http://jabber.org/protocol/disco#info"
_DISCO_ITEMS = "http://jabber.org/protocol/disco#items"
_PING = "urn:xmpp:ping"


def write_ping(ping_id: str, addresses: Addresses) -> str:
    """Return an XEP-0199 ping from the component to the domain."""
    return (
        f"<iq type='get' id={quote(ping_id)} from='{addresses.component}' to='{addresses.domain}'>"
        f"<ping xmlns='{_PING}'/></iq>"
    )


def read_pong(iq: ET.Element, addresses: Addresses) -> str | None:
    """Return the id of the ping that this `<iq>` answers, or None; an error is as good an answer as a result."""
    is_answer = iq.get("type") in {"result", "error"} and iq.get("from") == addresses.domain
    return iq.get("id") if is_answer else None


def answer_iq(iq: ET.Element) -> str | None:
    """Return the answer to a request: disco#info, disco#items (XEP-0030) and ping (XEP-0199), else service-unavailable.

    None for what is no request. RFC 6120 section 8.2.3 asks for an answer to every get and set.
    """
    asker, kind = iq.get("from"), iq.get("type")
    if asker is None or kind not in {"get", "set"}:
        return None
    payload = _DISCOVERABLE.get((kind, iq[0].tag, iq[0].get("node"))) if len(iq) else None
    outcome = "error" if payload is None else "result"
    addressed = f" from={quote(iq.get('to', ''))} to={quote(asker)}{id_attribute(iq.get('id'))}"
    return f"<iq type='{outcome}'{addressed}>{_REFUSED if payload is None else payload}</iq>"


_REFUSED = f"<error type='cancel'><service-unavailable xmlns='{STANZAS_NS}'/></error>"
_FEATURES = "".join(f"<feature var='{feature}'/>" for feature in (_DISCO_INFO, _DISCO_ITEMS, _PING, TLIM_NS))
_IDENTITY = "<identity category='component' type='generic' name='tlim bridge'/>"
_DISCOVERABLE: dict[tuple[str, str, str | None], str] = {
    ("get", f"{{{_DISCO_INFO}}}query", None): f"<query xmlns='{_DISCO_INFO}'>{_IDENTITY}{_FEATURES}</query>",
    ("get", f"{{{_DISCO_ITEMS}}}query", None): f"<query xmlns='{_DISCO_ITEMS}'/>",
    ("get", f"{{{_PING}}}ping", None): "",
}
