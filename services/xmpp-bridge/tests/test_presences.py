"""What the modules of the XMPP servers say in presences, and what anybody else may say there."""

from xml.etree import ElementTree as ET

import pytest
from tlim_protocol.stanzas import TLIM_NS
from xmpp_bridge.presences import MAX_SESSION_ID, Came, Gone, Hello, Missed, Sign, Stale, read_presence
from xmpp_bridge.translate import BridgeAddresses

ADDRESSES = BridgeAddresses("im.example", "bridge.im.example")
BOB = "Bob@im.example/phone"


def read(sender: str, payload: str = "", kind: str = "") -> Sign | None:
    presence = ET.XML(f"<presence from='{sender}' type='{kind}'>{payload}</presence>")
    if not kind:
        del presence.attrib["type"]
    for element in presence:
        element.tag = f"{{{TLIM_NS}}}{element.tag}"
    return read_presence(presence, ADDRESSES)


@pytest.mark.parametrize(
    ("sender", "payload", "kind", "sign"),
    [
        ("im.example", "<mailbox/>", "", Hello()),
        (BOB, "<session id='a'/>", "", Came("bob", "a")),
        (BOB, "<session id='a' stale='true' confirmed='7'/>", "", Stale("bob", "a", 7)),
        (BOB, "<session id='a' stale='true'/>", "", Stale("bob", "a", None)),
        (BOB, "<session id='a' confirmed='7'/>", "unavailable", Gone("bob", "a", 7)),
        (BOB, "<session id='a'/>", "unavailable", Gone("bob", "a", None)),
        ("bob@im.example", "<missed seq='7'/>", "unavailable", Missed("bob", 7)),
    ],
)
def test_what_the_module_says_is_understood(sender: str, payload: str, kind: str, sign: Sign) -> None:
    assert read(sender, payload, kind) == sign


@pytest.mark.parametrize(
    ("sender", "payload", "kind"),
    [
        (BOB, "", ""),  # what a server without our module forwards
        (BOB, "<mailbox/>", ""),
        ("elsewhere.example", "<mailbox/>", ""),
        ("bob@elsewhere.example/phone", "<session id='a'/>", ""),
        (BOB, "<session id=''/>", ""),
        (BOB, f"<session id='{'x' * (MAX_SESSION_ID + 1)}'/>", ""),
        (BOB, "<session id='a'/>", "error"),
        (BOB, "<session id='a'/>", "subscribe"),
        ("bob@im.example", "<missed seq='7'/>", ""),
        ("bob@im.example", "<missed seq='-7'/>", "unavailable"),
        ("bob@im.example", "<missed seq='1e3'/>", "unavailable"),
        ("bob@im.example", f"<missed seq='{10**18}'/>", "unavailable"),
        (f"{'x' * 65}@im.example/phone", "<session id='a'/>", ""),
    ],
)
def test_everything_else_means_nothing(sender: str, payload: str, kind: str) -> None:
    assert read(sender, payload, kind) is None


def test_a_number_that_is_none_is_not_known() -> None:
    assert read(BOB, "<session id='a' confirmed='many'/>", "unavailable") == Gone("bob", "a", None)
