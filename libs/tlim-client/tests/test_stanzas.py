"""Reading stanzas: what each means, and what a forger cannot make them mean."""

import pytest
from slixmpp.xmlstream import ET
from tlim_client.compose import new_envelope, text_message
from tlim_client.inbox import Bounced, Carbon, CaughtUp, Delivered, Plain, Refused, Stored
from tlim_client.stanzas import message_stanza, read_stanza
from tlim_protocol.envelope import write_envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType
from tlim_protocol.stanzas import TLIM_NS

ME, DOMAIN = "alice@example.org", "example.org"
FROM_BOB = text_message("bob", "alice", "hi")


def _read(xml: str) -> object:
    return read_stanza(ET.fromstring(xml), ME, DOMAIN)


def _message(inside: str, sender: str = "bob@example.org", attributes: str = "") -> str:
    return f"<message xmlns='jabber:client' from='{sender}' id='s1' {attributes}>{inside}</message>"


def _delivery(sender: str = "bob@example.org", extra: str = "") -> str:
    mark = f"<tlim xmlns='{TLIM_NS}' location='server' seq='7' time='99'/>"
    return _message(f"<body>{write_envelope(FROM_BOB)}</body>{mark}{extra}", sender)


def test_a_delivery_has_its_envelope_and_its_place() -> None:
    assert _read(_delivery()) == Delivered(FROM_BOB, "bob@example.org", "s1", seq=7, time=99)


def test_a_delivery_that_waited_for_its_receiver_is_delayed() -> None:
    event = _read(_delivery(extra="<delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/>"))
    assert isinstance(event, Delivered)
    assert event.delayed


def test_a_delivery_whose_envelope_names_another_sender_is_no_delivery() -> None:
    assert isinstance(_read(_delivery("mallory@example.org")), Plain)


def test_a_notice_comes_from_the_domain_and_names_who_caused_it() -> None:
    notice = new_envelope("bob", None, MsgType.SESSION_DELETED, {"session_id": "s1"})
    inside = f"<body>{write_envelope(notice)}</body><tlim xmlns='{TLIM_NS}' location='server' seq='7' time='99'/>"
    assert _read(_message(inside, DOMAIN)) == Delivered(notice, DOMAIN, "s1", seq=7, time=99)
    assert isinstance(_read(_message(inside, "mallory@example.org")), Plain)


def test_stored_is_read_from_the_domain_and_not_from_a_user() -> None:
    stored = f"<stored xmlns='{TLIM_NS}' msg_id='m' seq='5' time='6'/>"
    assert _read(_message(stored, DOMAIN)) == Stored("m", 5, 6)
    assert _read(_message(stored, "mallory@example.org/x")) is None


@pytest.mark.parametrize("more", ["true", "false"])
def test_the_end_of_what_was_missed_is_read_from_the_domain_and_not_from_a_user(more: str) -> None:
    mark = f"<caught-up xmlns='{TLIM_NS}' seq='5' more='{more}'/><no-store xmlns='urn:xmpp:hints'/>"
    assert _read(_message(mark, DOMAIN, "type='headline'")) == CaughtUp(5, more == "true")
    for forger in ("mallory@example.org/x", "alice@example.org/x", "bridge.example.org", "example.org/x"):
        assert _read(_message(mark, forger, "type='headline'")) is None


def test_a_refusal_is_read_with_and_without_the_element_for_machines() -> None:
    code = ErrorCode.MSG_TYPE_INVALID
    element = f"<error xmlns='{TLIM_NS}' code='{code}' msg_id='m' field='msg_type'>no such type</error>"
    assert _read(_message(f"<body>{code}</body>{element}", DOMAIN)) == Refused(
        code, "m", "msg_type", "no such type", "s1", code
    )
    assert _read(_message(f"<body>{code}</body>", DOMAIN)) == Refused(code, None, None, "", "s1", code)


def test_a_refusal_says_when_the_message_would_pass() -> None:
    code = ErrorCode.TOO_MANY_REQUESTS
    element = f"<error xmlns='{TLIM_NS}' code='{code}' msg_id='m' retry_after='6'>too often</error>"
    refused = _read(_message(f"<body>{code}</body>{element}", DOMAIN))
    assert isinstance(refused, Refused)
    assert refused.retry_after == 6


def test_a_code_written_by_a_user_is_plain_chat() -> None:
    code = ErrorCode.BODY_EMPTY
    assert _read(_message(f"<body>{code}</body>")) == Plain("bob@example.org", code, "s1")


def test_a_bounce_tells_its_condition() -> None:
    condition = "<service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
    text = "<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>offline</text>"
    bounced = _read(_message(f"<error type='cancel'>{condition}{text}</error>", attributes="type='error'"))
    assert bounced == Bounced("service-unavailable", "s1", "offline")


def _carbon(kind: str, inner: str) -> str:
    return f"<{kind} xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>{inner}</forwarded></{kind}>"


@pytest.mark.parametrize("kind", ["sent", "received"])
def test_a_carbon_counts_only_from_our_own_account(kind: str) -> None:
    inner = _delivery()
    carbon = _read(_message(_carbon(kind, inner), ME))
    assert isinstance(carbon, Carbon)
    assert (carbon.sent, carbon.message) == (kind == "sent", read_stanza(ET.fromstring(inner), ME, DOMAIN))
    assert _read(_message(_carbon(kind, inner), "mallory@example.org")) is None


def test_what_says_nothing_is_nothing() -> None:
    assert _read(_message("<composing xmlns='http://jabber.org/protocol/chatstates'/>")) is None


def test_a_stanza_is_made_with_or_without_the_mark_and_the_body() -> None:
    marked = message_stanza("bob@example.org", "text", "s1")
    assert read_stanza(marked, ME, DOMAIN) == Plain("", "text", "s1")
    assert marked.find(f"{{{TLIM_NS}}}tlim") is not None
    plain = message_stanza("bob@example.org", None, "s1", location=None, sender_jid="eve@example.org")
    assert (list(plain), plain.get("from")) == ([], "eve@example.org")
