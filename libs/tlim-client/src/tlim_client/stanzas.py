"""Pure translation between XMPP message stanzas and the events of a tlim client."""

from xml.etree.ElementTree import Element, SubElement

from tlim_protocol.envelope import Envelope, read_envelope
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.identity import normalize_user_id
from tlim_protocol.lenient import read_strict
from tlim_protocol.stanzas import CARBONS_NS, DELAY_NS, FORWARD_NS, Tag

from tlim_client.inbox import Bounced, Carbon, CaughtUp, Delivered, Plain, Received, Refused, Stored

CLIENT_NS = "jabber:client"
STANZAS_NS = "urn:ietf:params:xml:ns:xmpp-stanzas"

_CODES = {code.value: code for code in ErrorCode}


def tlim_element(location: str = "mobile") -> Element:
    """Return the element that makes a message a tlim message (specification section 7)."""
    return Element(Tag.TLIM.qualified, {"location": location})


def message_stanza(
    to_jid: str, body: str | None, stanza_id: str, *, location: str | None = "mobile", sender_jid: str | None = None
) -> Element:
    """Return a chat message. Without `location` it has no tlim element. `sender_jid` sets a `from`."""
    stanza = Element(f"{{{CLIENT_NS}}}message", {"type": "chat", "to": to_jid, "id": stanza_id})
    if sender_jid is not None:
        stanza.set("from", sender_jid)
    if body is not None:
        SubElement(stanza, f"{{{CLIENT_NS}}}body").text = body
    if location is not None:
        stanza.append(tlim_element(location))
    return stanza


def read_stanza(stanza: Element, me: str, domain: str) -> Received | None:
    """Return the event that a `<message>` is to `me` (a bare JID) on `domain`, or None when it is nothing to tlim.

    `stored`, refusals and `caught-up` count only when they come from the domain itself. Carbons count only when they
    come from our own account (XEP-0280 section 11). Anybody else could forge them.
    """
    carbon = _read_carbon(stanza, me, domain)
    if carbon is not None:
        return carbon
    if stanza.get("type") == "error":
        return _read_bounce(stanza)
    if stanza.get("from", domain) == domain:
        answer = _read_stored(stanza) or _read_caught_up(stanza) or _read_refusal(stanza)
        if answer is not None:
            return answer
    return _read_message(stanza, domain)


def _read_carbon(stanza: Element, me: str, domain: str) -> Carbon | None:
    for name in ("sent", "received"):
        inner = stanza.find(f"{{{CARBONS_NS}}}{name}/{{{FORWARD_NS}}}forwarded/{{{CLIENT_NS}}}message")
        if inner is not None and stanza.get("from") == me:
            message = _read_message(inner, domain)
            return None if message is None else Carbon(sent=name == "sent", message=message)
    return None


def _read_bounce(stanza: Element) -> Bounced:
    error = stanza.find(f"{{{CLIENT_NS}}}error")
    conditions = [] if error is None else [child for child in error if child.tag.startswith(f"{{{STANZAS_NS}}}")]
    names = [child.tag.partition("}")[2] for child in conditions]
    text = next((child.text or "" for child in conditions if child.tag.endswith("}text")), "")
    return Bounced(next((name for name in names if name != "text"), ""), stanza.get("id", ""), text)


def _read_stored(stanza: Element) -> Stored | None:
    stored = stanza.find(Tag.STORED.qualified)
    if stored is None:
        return None
    seq, time = _number(stored.get("seq")) or 0, _number(stored.get("time")) or 0
    return Stored(stored.get("msg_id", ""), seq, time, stanza.get("id", ""))


def _read_caught_up(stanza: Element) -> CaughtUp | None:
    mark = stanza.find(Tag.CAUGHT_UP.qualified)
    return None if mark is None else CaughtUp(_number(mark.get("seq")) or 0, mark.get("more") == "true")


def _read_refusal(stanza: Element) -> Refused | None:
    error = stanza.find(Tag.ERROR.qualified)
    body = stanza.findtext(f"{{{CLIENT_NS}}}body") or ""
    code = _CODES.get(body if error is None else error.get("code", body))
    if code is None:
        return None
    details = Element("error") if error is None else error
    named = details.get("msg_id"), details.get("field"), details.text or ""
    return Refused(code, *named, stanza.get("id", ""), body, _number(details.get("retry_after")))


def _read_message(stanza: Element, domain: str) -> Delivered | Plain | None:
    body = stanza.findtext(f"{{{CLIENT_NS}}}body")
    if body is None:
        return None
    from_jid, stanza_id = stanza.get("from", ""), stanza.get("id", "")
    mark = stanza.find(Tag.TLIM.qualified)
    if mark is None:
        return Plain(from_jid, body, stanza_id)
    try:
        if mark.get("location") == "server":
            envelope = _read_delivery(body, None if from_jid == domain else from_jid)
        else:
            envelope = read_envelope(body, _user_of(from_jid))
    except (TlimError, ValueError):
        return Plain(from_jid, body, stanza_id)
    delayed = stanza.find(f"{{{DELAY_NS}}}delay") is not None
    return Delivered(envelope, from_jid, stanza_id, _number(mark.get("seq")), _number(mark.get("time")), delayed)


def _read_delivery(body: str, from_jid: str | None) -> Envelope:
    """Return an envelope as the server writes it. It is read strictly.

    An unpacked envelope may be longer than a client's stanza. A notice comes from the domain itself (`from_jid` None),
    and its `from` names the user that caused it.
    """
    envelope = Envelope.model_validate(read_strict(body))
    if from_jid is not None and envelope.msg_from != _user_of(from_jid):
        raise TlimError(ErrorCode.FROM_NOT_SENDER, "the envelope names another sender than the stanza", field="from")
    return envelope


def _user_of(jid: str) -> str:
    return normalize_user_id(jid.partition("@")[0])


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
