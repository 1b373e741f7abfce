"""Golden files: for each stanza or event in tests/golden exactly what it is translated to."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tlim_protocol.envelope import MAX_STANZA_BYTES, Envelope
from tlim_protocol.events import StoredMessage, read_out_event
from tlim_protocol.notices import kept_form
from tlim_protocol.registry import MsgType
from xmpp_bridge.translate import Accept, BridgeAddresses, read_arrival, write_event

GOLDEN = Path(__file__).parent / "golden"
ADDRESSES = BridgeAddresses("im.itonglian.com", "bridge.im.itonglian.com")


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
    arrival = read_arrival(read(path), ADDRESSES, Accept.BOTH)
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert (arrival._asdict() if arrival else None) == expected


@pytest.mark.parametrize("path", cases("outbound", ".json"), ids=lambda path: path.stem)
def test_an_event_is_written_as_its_golden_file_says(path: Path) -> None:
    stanzas = list(write_event(read_out_event(path.read_bytes()), ADDRESSES, Accept.DIVERTED))
    expected = path.with_suffix(".xml").read_text(encoding="utf-8")
    assert "".join(f"{stanza}\n" for stanza in stanzas) == expected
    assert len(as_stream("".join(stanzas))) == len(stanzas)


@pytest.mark.parametrize("name", ["Project X", "项" * 128])
@pytest.mark.parametrize(("added", "removed"), [(0, 0), (1, 1), (12, 0), (900, 0), (0, 900)])
def test_a_change_of_a_group_of_950_costs_each_member_less_than_1_kb(name: str, added: int, removed: int) -> None:
    members, session_id = [f"user{number:04}" for number in range(950)], "0b6eba5b-0ad3-4f0c-a5b3-b4e6c2e8e6a3"
    listed = [{"user_id": member} for member in members]
    element = {
        "session_id": session_id, "session_name": name, "session_type": 0, "session_user": members[0],
        "session_valid": 0, "session_modify_time": "1599218283837", "actor": members[1], "version": 1234,
        "subscribers": listed, "added": listed[:added], "removed": listed[:removed],
    }  # fmt: skip
    envelope = Envelope(
        msg_from=members[1], msg_id=f"{session_id}:1234", msg_type=MsgType.SESSION_CHANGED, msg_time="1599218283837",
        body=[kept_form(element)],
    )  # fmt: skip
    event = StoredMessage(seq=10**9, stored_at=1599218283837, recipients=members, envelope=envelope)
    stanzas = list(write_event(event, ADDRESSES, Accept.DIVERTED))
    assert len(stanzas) == len(members)
    assert max(len(stanza.encode()) for stanza in stanzas) < 1024


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
    arrival = read_arrival(of_size(characters), ADDRESSES, Accept.BOTH)
    assert arrival is not None
    assert arrival.is_oversized == is_oversized


def test_a_stanza_nested_without_end_is_too_large() -> None:
    stanza = of_size("x" * (MAX_STANZA_BYTES // 4))
    inner = stanza
    for _ in range(5_000):
        inner = ET.SubElement(inner, "{example.org}a")
    arrival = read_arrival(stanza, ADDRESSES, Accept.BOTH)
    assert arrival is not None
    assert arrival.is_oversized


def test_a_stanza_of_many_small_elements_is_measured_too() -> None:
    stanza = of_size("x")
    for _ in range(MAX_STANZA_BYTES // 15):
        ET.SubElement(stanza, "{example.org}element")
    arrival = read_arrival(stanza, ADDRESSES, Accept.BOTH)
    assert arrival is not None
    assert arrival.is_oversized


def test_of_a_message_in_pieces_only_the_first_is_copied_to_the_sender() -> None:
    first = read_out_event((GOLDEN / "outbound" / "text.json").read_bytes())
    assert isinstance(first, StoredMessage)
    rest = first.model_copy(update={"reply_to": None, "tells_sender": False})
    stanzas = [text for event in (first, rest, rest) for text in write_event(event, ADDRESSES, Accept.DIVERTED)]
    assert len([text for text in stanzas if "<forwarded " in text]) == 1


def test_a_server_without_our_module_is_told_of_no_copies() -> None:
    event = read_out_event((GOLDEN / "outbound" / "text.json").read_bytes())
    stanzas = list(write_event(event, ADDRESSES, Accept.ADDRESSED))
    assert [stanza.partition(" to='")[2].partition("@")[0] for stanza in stanzas] == ["bob", "alice"]
    assert "<forwarded" not in "".join(stanzas)
