"""Who is believed: every way to claim somebody else's name that we could think of, each ending in silence."""

from xml.etree import ElementTree as ET

import pytest
from xmpp_bridge.translate import Accept, BridgeAddresses, read_arrival

DOMAIN = "im.itonglian.com"
ADDRESSES = BridgeAddresses(DOMAIN, f"bridge.{DOMAIN}")
MARK = f"<tlim xmlns='{DOMAIN}' location='web'/>"


def diverted(outer: str | None, inner: str | None = f"alice@{DOMAIN}/phone") -> ET.Element:
    return ET.XML(
        f"<message xmlns='jabber:component:accept' to='bridge.{DOMAIN}' {_from(outer)}>"
        "<forwarded xmlns='urn:xmpp:forward:0'>"
        f"<message xmlns='jabber:client' to='bob@{DOMAIN}' {_from(inner)}><body>x</body>{MARK}</message>"
        "</forwarded></message>"
    )


def addressed(sender: str | None, to: str = f"bob@bridge.{DOMAIN}") -> ET.Element:
    return ET.XML(f"<message xmlns='jabber:component:accept' to='{to}' {_from(sender)}><body>x</body>{MARK}</message>")


def _from(jid: str | None) -> str:
    return "" if jid is None else f"from='{jid}'"


NOT_THE_DOMAIN = [
    None,
    "",
    f"mallory@{DOMAIN}/x",
    f"mallory@{DOMAIN}",
    f"{DOMAIN}/resource",
    f"{DOMAIN}.evil",
    f"{DOMAIN}.",
    f"evil.{DOMAIN}",
    f"bridge.{DOMAIN}",
    f" {DOMAIN}",
    "itonglian.com",
    "im.itonglian.com.",
    f"x@{DOMAIN}@evil",
]

NOT_A_USER = [
    None,
    "",
    DOMAIN,
    f"{DOMAIN}/alice",
    f"@{DOMAIN}",
    f"@{DOMAIN}/x",
    f"alice@{DOMAIN}.evil/x",
    f"alice@evil.{DOMAIN}/x",
    f"alice@bridge.{DOMAIN}/x",
    "alice@evil.example/x",
    f"alice@evil.example/@{DOMAIN}",
    f"alice@evil.example/x@{DOMAIN}/y",
    f"alice@evil@{DOMAIN}",
    f"evil.example/alice@{DOMAIN}",
    "alice@",
    "alice",
]


@pytest.mark.parametrize("outer", NOT_THE_DOMAIN)
def test_a_diverted_message_counts_only_from_exactly_the_bare_domain(outer: str | None) -> None:
    assert read_arrival(diverted(outer), ADDRESSES, Accept.BOTH) is None


@pytest.mark.parametrize("inner", NOT_A_USER)
def test_a_diverted_message_counts_only_when_its_sender_is_a_user_of_the_domain(inner: str | None) -> None:
    assert read_arrival(diverted(DOMAIN, inner), ADDRESSES, Accept.BOTH) is None


@pytest.mark.parametrize("sender", NOT_A_USER)
def test_an_addressed_message_counts_only_from_a_user_of_the_domain(sender: str | None) -> None:
    assert read_arrival(addressed(sender), ADDRESSES, Accept.BOTH) is None


def test_what_a_client_wraps_itself_is_not_a_diverted_message() -> None:
    forged = diverted(f"mallory@{DOMAIN}/x", f"alice@{DOMAIN}/phone")
    forged.append(ET.XML(MARK))
    arrival = read_arrival(forged, ADDRESSES, Accept.BOTH)
    assert arrival is not None
    assert arrival.sender == "mallory"
    assert arrival.text is None


@pytest.mark.parametrize("to", [f"bob@bridge.{DOMAIN}", f"bridge.{DOMAIN}", f"carol@bridge.{DOMAIN}/x"])
def test_the_stanzas_own_address_is_not_compared_with_the_envelopes(to: str) -> None:
    arrival = read_arrival(addressed(f"alice@{DOMAIN}/phone", to), ADDRESSES, Accept.BOTH)
    assert arrival is not None
    assert arrival.sender == "alice"


@pytest.mark.parametrize(
    ("accept", "believed"),
    [(Accept.DIVERTED, ["diverted"]), (Accept.ADDRESSED, ["addressed"]), (Accept.BOTH, ["diverted", "addressed"])],
)
def test_only_the_way_in_that_the_server_is_set_up_for_is_believed(accept: Accept, believed: list[str]) -> None:
    alice = f"alice@{DOMAIN}/phone"
    arrivals = {"diverted": diverted(DOMAIN, alice), "addressed": addressed(alice)}
    assert [way for way, stanza in arrivals.items() if read_arrival(stanza, ADDRESSES, accept)] == believed


def test_domains_are_compared_without_case() -> None:
    assert read_arrival(addressed("alice@IM.itonglian.COM/x"), ADDRESSES, Accept.BOTH) is not None
