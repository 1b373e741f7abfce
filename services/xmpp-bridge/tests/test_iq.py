"""Golden files: for each request in tests/golden/iq exactly what it is answered; and whose pong counts."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from xmpp_bridge.iq import answer_iq, read_pong, write_ping
from xmpp_bridge.translate import BridgeAddresses

GOLDEN = Path(__file__).parent / "golden" / "iq"
ADDRESSES = BridgeAddresses("im.itonglian.com", "bridge.im.itonglian.com")


def as_stream(stanzas: str) -> list[ET.Element]:
    return list(ET.XML(f"<stream xmlns='jabber:component:accept'>{stanzas}</stream>"))


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.xml")), ids=lambda path: path.stem)
def test_a_request_is_answered_as_its_golden_file_says(path: Path) -> None:
    answer = answer_iq(ET.XML(path.read_text(encoding="utf-8")))
    expected = path.with_suffix(".answer").read_text(encoding="utf-8")
    assert f"{answer or ''}\n" == expected


def test_a_request_without_sender_is_not_answered() -> None:
    assert answer_iq(ET.XML("<iq type='get'/>")) is None


@pytest.mark.parametrize("kind", ["result", "error"])
def test_any_answer_of_the_domain_to_a_ping_is_its_pong(kind: str) -> None:
    ping = as_stream(write_ping("barrier-1", ADDRESSES))[0]
    pong = ET.XML(f"<iq type='{kind}' id='{ping.get('id')}' from='{ping.get('to')}' to='{ping.get('from')}'/>")
    assert read_pong(pong, ADDRESSES) == "barrier-1"


@pytest.mark.parametrize(
    "forged",
    [
        "<iq type='result' id='barrier-1' from='mallory@im.itonglian.com/x'/>",
        "<iq type='result' id='barrier-1'/>",
        "<iq type='get' id='barrier-1' from='im.itonglian.com'/>",
    ],
)
def test_nobody_else_can_answer_a_ping(forged: str) -> None:
    assert read_pong(ET.XML(forged), ADDRESSES) is None
