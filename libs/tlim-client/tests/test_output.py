"""What is printed for people and for programs."""

import pytest
from tlim_client.cli.output import clock, json_of_event, line_of_event, printable, size
from tlim_client.compose import file_message, new_envelope, text_message
from tlim_client.inbox import Delivered, Plain, Received, Stored
from tlim_protocol.registry import MsgType

NEVER = "--:--:--"


def _line(event: Received) -> str:
    line = line_of_event(event)
    assert line is not None
    return line.partition(" ")[2]


def test_a_text_is_shown_with_its_sender() -> None:
    delivered = Delivered(text_message("bob", "alice", "hi\nthere"), "bob@d", "s", seq=7, time=1)
    assert line_of_event(delivered) == f"{clock(1)} bob: hi\nthere"


@pytest.mark.parametrize(
    ("kind", "shown"), [(MsgType.IMAGE, "[image] f1"), (MsgType.FILE, "[file] f1"), (MsgType.VOICE, "[voice] f1")]
)
def test_a_file_is_shown_by_what_it_is_and_its_id(kind: MsgType, shown: str) -> None:
    assert shown in _line(Delivered(file_message("bob", "alice", kind, "f1"), "bob@d", "s"))


def test_a_type_without_text_is_shown_as_it_is() -> None:
    todo = new_envelope("bob", "alice", MsgType.GROUP_TODO, {"session_id": "s1", "title": "pay"})
    assert '[group to-do] [{"session_id": "s1", "title": "pay"}]' in _line(Delivered(todo, "bob@d", "s"))


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"added": [{"user_id": "carol"}], "removed": [{"user_id": "bob"}]}, "+carol -bob (3 people)"),
        ({"added_count": 900, "removed": []}, "+900 (3 people)"),
    ],
)
def test_a_notice_is_shown_by_what_changed(changes: dict[str, object], shown: str) -> None:
    element = {"session_id": "s1", "session_name": "Project X", "subscribers_count": 3, **changes}
    notice = new_envelope("bob", None, MsgType.SESSION_CHANGED, element)
    assert _line(Delivered(notice, "d", "s")) == f"bob: [session changed] s1 Project X {shown}"


@pytest.mark.parametrize(
    ("names", "count", "shown"), [(["bob", "carol"], 302, "m1 (bob carol, 302 people)"), ([], 9, "m1 (9 people)")]
)
def test_a_gathered_receipt_is_shown_with_its_readers(names: list[str], count: int, shown: str) -> None:
    readers = [{"user_id": name} for name in names]
    element = {"session_id": "s1", "msg_id": "m1", "readers": readers, "readers_count": count}
    read = new_envelope("bob", "alice", MsgType.READ, element)
    assert _line(Delivered(read, "bob@d", "s")) == f"bob: [read receipt] {shown}"


def test_nobody_steers_the_terminal() -> None:
    assert "\x1b" not in _line(Delivered(text_message("bob", "alice", "\x1b[2J\x07"), "bob@d", "s"))
    assert printable("a\x1bb\nc") == "a\N{REPLACEMENT CHARACTER}b\nc"


def test_plain_chat_is_told_apart_and_the_server_s_answers_are_no_messages() -> None:
    assert line_of_event(Plain("bob@d/phone", "hi", "s")) == "bob@d (plain XMPP): hi"
    assert line_of_event(Stored("m", 1, 2)) is None
    assert json_of_event(Stored("m", 1, 2)) is None


def test_json_has_the_wire_s_names() -> None:
    envelope = text_message("bob", "alice", "hi")
    shown = json_of_event(Delivered(envelope, "bob@d", "s", seq=7, time=8, delayed=True))
    assert shown == {
        "kind": "message",
        "seq": 7,
        "stored_at": 8,
        "delayed": True,
        "compress": "0",
        "encode": "1",
        "encrypt": "0",
        "version": "2.0.0",
        "from": "bob",
        "to": "alice",
        "msg_id": envelope.msg_id,
        "msg_type": MsgType.TEXT,
        "msg_time": envelope.msg_time,
        "body": [{"text": "hi"}],
    }


@pytest.mark.parametrize("instant", [None, "noon", "9" * 20])
def test_a_time_that_is_none_is_shown_as_dashes(instant: object) -> None:
    assert clock(instant) == NEVER


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (5 << 40, "5120.0 GiB")]
)
def test_sizes_are_for_people(count: int, shown: str) -> None:
    assert size(count) == shown
