"""Golden files: for each stanza or event in tests/golden exactly what it is translated to."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tlim_protocol.envelope import MAX_STANZA_BYTES
from tlim_protocol.events import read_out_event
from xmpp_bridge.translate import Addresses, answer_iq, read_arrival, read_pong, write_event, write_ping

GOLDEN = Path(__file__).parent / "golden"
ADDRESSES = Addresses("im.itonglian.com", "bridge.im.itonglian.com")


def cases(folder: str, suffix: str) -> list[Path]:
    found = sorted((GOLDEN / folder).glob(f"*{suffix}"))
    assert found, folder
    return found


def read(path: Path) -> ET.Element:
    return ET.XML(path.read_text(encoding="utf-8"))


def as_stream(stanzas: str) -> list[ET.Element]:
    return list(ET.XML(f"<stream xmlns='jabber:component:accept'>{stanzas}</stream>"))


@pytest.mark.parametrize("path", cases("inbound", ".xml"), ids=lambda path: path.stem)
def test_a_stanza_is_read_as_its_golden_file_says(path: Path) -> None:
    arrival = read_arrival(read(path), ADDRESSES)
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert (arrival._asdict() if arrival else None) == expected


@pytest.mark.parametrize("path", cases("outbound", ".json"), ids=lambda path: path.stem)
def test_an_event_is_written_as_its_golden_file_says(path: Path) -> None:
    stanzas = list(write_event(read_out_event(path.read_bytes()), ADDRESSES))
    expected = path.with_suffix(".xml").read_text(encoding="utf-8")
    assert "".join(f"{stanza}\n" for stanza in stanzas) == expected
    assert len(as_stream("".join(stanzas))) == len(stanzas)


@pytest.mark.parametrize("path", cases("iq", ".xml"), ids=lambda path: path.stem)
def test_a_request_is_answered_as_its_golden_file_says(path: Path) -> None:
    answer = answer_iq(read(path))
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


def of_size(characters: str) -> ET.Element:
    stanza = ET.XML(
        "<message xmlns='jabber:component:accept' from='alice@im.itonglian.com/x'><body/>"
        "<tlim xmlns='im.itonglian.com'/></message>"
    )
    stanza[0].text = characters
    return stanza


@pytest.mark.parametrize(
    ("characters", "is_oversized"),
    [
        ("x" * 1000, False),
        ("x" * (MAX_STANZA_BYTES - 2000), False),
        ("x" * MAX_STANZA_BYTES, True),
        ("你" * (MAX_STANZA_BYTES // 3), True),
        ("<" * (MAX_STANZA_BYTES // 4), True),
        ("你" * (MAX_STANZA_BYTES // 4), False),
    ],
)
def test_a_stanza_is_measured_in_bytes_as_it_travels(characters: str, is_oversized: bool) -> None:
    arrival = read_arrival(of_size(characters), ADDRESSES)
    assert arrival is not None
    assert arrival.is_oversized == is_oversized


def test_a_stanza_of_many_small_elements_is_measured_too() -> None:
    stanza = of_size("x")
    for _ in range(MAX_STANZA_BYTES // 15):
        ET.SubElement(stanza, "{example.org}element")
    arrival = read_arrival(stanza, ADDRESSES)
    assert arrival is not None
    assert arrival.is_oversized
