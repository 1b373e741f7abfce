"""Whatever goes in, what goes out is well-formed XML that says the same."""

import json
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import StoredMessage
from tlim_protocol.registry import MsgType
from xmpp_bridge.iq import answer_iq
from xmpp_bridge.translate import NO_JID, Accept, BridgeAddresses, read_arrival, write_error, write_event

ADDRESSES = BridgeAddresses("im.itonglian.com", "bridge.im.itonglian.com")

anything = st.text(st.characters(exclude_categories=["Cs"]))
xml_text = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | anything,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=4,
)


def as_stream(stanzas: str) -> list[ET.Element]:
    return list(ET.XML(f"<stream>{stanzas}</stream>"))


refusals = st.builds(
    TlimError, st.sampled_from(ErrorCode), anything, field=anything | st.none(), msg_id=anything | st.none()
)


@given(refusals, anything, anything)
def test_a_refusal_is_always_one_well_formed_stanza(error: TlimError, jid: str, stanza_id: str) -> None:
    (stanza,) = as_stream(write_error(error, jid, stanza_id, ADDRESSES))
    assert stanza.findtext("body") == error.code.value


jids = anything.filter(lambda jid: not jid.startswith(NO_JID))
bodies = st.lists(st.dictionaries(anything, json_values, max_size=3), min_size=1, max_size=3)


@given(bodies, anything, jids, anything, st.lists(anything, max_size=3))
def test_a_delivery_holds_the_envelope_unchanged(
    body: list[dict[str, object]], msg_id: str, jid: str, stanza_id: str, recipients: list[str]
) -> None:
    envelope = Envelope(msg_from="alice", msg_to="bob", msg_id=msg_id, msg_type=MsgType.TEXT, body=body)
    event = StoredMessage(
        seq=1, stored_at=2, recipients=recipients, envelope=envelope, reply_to=jid, stanza_id=stanza_id
    )
    *deliveries, sent, stored = as_stream("".join(write_event(event, ADDRESSES, Accept.DIVERTED)))
    assert len(deliveries) == len(recipients)
    assert stored.get("type") == "headline"
    assert sent.get("to") == stored.get("to") or not jid
    for delivery in deliveries:
        assert json.loads(delivery.findtext("body") or "")["body"] == body
    copy = sent.findtext("{urn:xmpp:forward:0}forwarded/{jabber:client}message/{jabber:client}body")
    assert json.loads(copy or "")["body"] == body


@given(xml_text, xml_text, xml_text)
def test_attributes_come_back_as_they_went_in(resource: str, stanza_id: str, text: str) -> None:
    jid = f"alice@im.itonglian.com/{resource}"
    (stanza,) = as_stream(write_error(TlimError(ErrorCode.UNAVAILABLE, text), jid, stanza_id, ADDRESSES))
    assert (stanza.get("to"), stanza.get("id", "")) == (jid, stanza_id)
    assert stanza[2].text in (text, None)


@given(xml_text, xml_text, xml_text, xml_text)
def test_reading_never_fails_and_never_invents_a_sender(outer: str, inner: str, tag: str, body: str) -> None:
    message = ET.Element("{jabber:component:accept}message", {"from": outer})
    forwarded = ET.SubElement(message, "{urn:xmpp:forward:0}forwarded")
    wrapped = ET.SubElement(forwarded, "{jabber:client}message", {"from": inner})
    ET.SubElement(wrapped, tag).text = body
    assert read_arrival(message, ADDRESSES, Accept.BOTH) is None


@given(xml_text, xml_text, st.sampled_from(["get", "set", "result", "error", ""]), xml_text)
def test_an_answer_to_a_request_is_well_formed(asker: str, iq_id: str, kind: str, tag: str) -> None:
    iq = ET.Element("{jabber:component:accept}iq", {"from": asker, "id": iq_id, "type": kind})
    ET.SubElement(iq, tag)
    answer = answer_iq(iq)
    assert answer is None or len(as_stream(answer)) == 1
