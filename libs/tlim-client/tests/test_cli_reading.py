"""The commands of `tlim` that show what there is and change sessions, as typed, against a made-up server."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tlim_client.cli.output import clock
from tlim_client.compose import about, file_message, new_envelope, text_message
from tlim_client.inbox import CaughtUp, Delivered, Stored
from tlim_protocol.registry import MsgType

TEXT = text_message("bob", "alice", "hi, 你好")


def test_listen_prints_each_message_once_and_reports_it_as_received(as_alice: Any) -> None:
    delivered = Delivered(TEXT, "bob@d", "s", seq=1, time=1)
    last = Delivered(text_message("bob", "alice", "bye"), "bob@d", "s", seq=2, time=2)
    as_alice.doors.waiting = [delivered, Stored("m", 1, 2), delivered, last]

    result = as_alice("listen", "--count", "2")

    assert [line.partition("bob: ")[2] for line in result.stdout.splitlines()] == ["hi, 你好", "bye"]
    assert result.stderr == "Listening as alice; Ctrl-C ends.\n"
    receipts = as_alice.doors.clients[0].sent
    assert [(sent.msg_type, sent.msg_to) for sent in receipts] == [(MsgType.RECEIVED, "bob")] * 2
    assert [sent.body for sent in receipts] == [[{"msg_id": TEXT.msg_id}], [{"msg_id": last.envelope.msg_id}]]


def test_listen_sends_nothing_when_told_so(as_alice: Any) -> None:
    as_alice.doors.waiting = [Delivered(TEXT, "bob@d", "s", seq=1, time=1)]
    as_alice("listen", "--count", "1", "--no-receipts")
    assert as_alice.doors.clients[0].sent == []


def test_listen_shows_receipts_and_notices_but_neither_counts_nor_answers_them(as_alice: Any) -> None:
    read = about("bob", MsgType.READ, ["m1"], session_id="s1")
    renamed = new_envelope("bob", None, MsgType.SESSION_CHANGED, {"session_id": "s1", "session_name": "X"})
    as_alice.doors.waiting = [Delivered(one, "bob@d", "s", seq=1, time=1) for one in (read, renamed, TEXT)]

    lines = as_alice("listen", "--count", "1").stdout.splitlines()

    shown = ["[read receipt] m1", "[session changed] s1 X", "hi, 你好"]
    assert [line.partition("bob: ")[2] for line in lines] == shown
    assert len(as_alice.doors.clients[0].sent) == 1


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (False, "Caught up: what follows is new."),
        (True, "Caught up, but older messages or many receipts are in tlim sync only. What follows is new."),
    ],
)
def test_listen_says_where_what_was_missed_ends_and_does_not_count_it(as_alice: Any, more: bool, line: str) -> None:
    missed = Delivered(TEXT, "bob@d", "s", seq=1, time=1, delayed=True)
    new = Delivered(text_message("bob", "alice", "now"), "bob@d", "s", seq=2, time=2)
    as_alice.doors.waiting = [missed, CaughtUp(1, more), new]

    result = as_alice("listen", "--count", "2")
    objects = [json.loads(one) for one in as_alice("listen", "--count", "2", "--json").stdout.splitlines()]

    assert [one.partition("bob: ")[2] for one in result.stdout.splitlines()] == ["hi, 你好", "now"]
    assert result.stderr.splitlines() == ["Listening as alice; Ctrl-C ends.", line]
    assert [one["kind"] for one in objects] == ["message", "caught-up", "message"]
    assert objects[1] == {"kind": "caught-up", "seq": 1, "more": more}


def test_listen_saves_what_is_shared_and_a_lost_file_does_not_end_it(as_alice: Any, tmp_path: Path) -> None:
    as_alice.doors.http_answers["/v1/files/f2"] = httpx.Response(
        200, headers={"Content-Disposition": 'attachment; filename="../cat.png"'}, content=b"meow"
    )
    as_alice.doors.waiting = [
        Delivered(file_message("bob", "alice", MsgType.IMAGE, file_id), "bob@d", "s") for file_id in ("f1", "f2")
    ]
    folder = tmp_path / "shared"

    result = as_alice("listen", "--count", "2", "--json", "--save", str(folder))

    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["kind"] for line in lines] == ["message", "message", "saved"]
    assert result.stderr == "tlim: f1: HTTP 404: nothing here\n"
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("cat.png", b"meow")]


def test_history_is_printed_oldest_first(as_alice: Any) -> None:
    rows = [
        {"seq": seq, "stored_at": "1", "from": "bob", "msg_type": MsgType.TEXT, "body": [{"text": f"number {seq}"}]}
        for seq in (2, 1)
    ]
    as_alice.doors.http_answers["/v1/conversations/bob/messages"] = httpx.Response(
        200, json={"messages": rows, "next": 1, "more": False}
    )
    assert [line[-8:] for line in as_alice.ok("history", "bob").splitlines()] == ["number 1", "number 2"]
    assert [json.loads(line)["seq"] for line in as_alice.ok("history", "bob", "--json").splitlines()] == [1, 2]


def test_a_recalled_message_is_shown_as_such(as_alice: Any) -> None:
    row = {"stored_at": "1", "from": "bob", "msg_type": MsgType.TEXT, "body": [], "recalled": True}
    as_alice.doors.http_answers["/v1/conversations/bob/messages"] = httpx.Response(
        200, json={"messages": [row], "next": None, "more": False}
    )
    assert as_alice.ok("history", "bob").endswith("bob: [recalled]\n")


def test_sync_ends_with_the_place_to_go_on_from(as_alice: Any) -> None:
    row = {"seq": 7, "stored_at": "1", "from": "bob", "msg_type": MsgType.RECEIVED, "body": [{"msg_id": "m1"}]}
    as_alice.doors.http_answers["/v1/sync"] = httpx.Response(200, json={"items": [row], "next": 7, "more": False})

    shown, last = as_alice.ok("sync", "--after", "3").splitlines()

    assert shown.endswith("bob: [received receipt] m1")
    assert last == "--after 7"
    assert as_alice.doors.requests[-1].url.params["after"] == "3"


def test_conversations_are_shown_with_what_is_unread(as_alice: Any) -> None:
    last = {"stored_at": "1", "from": "bob", "msg_type": MsgType.TEXT, "body": [{"text": "hi"}]}
    named = {"conversation": "s1", "session_name": "X", "unread": 1000, "unread_capped": True, "last": None}
    person = {"conversation": "bob", "session_name": None, "unread": 0, "unread_capped": False, "last": last}
    as_alice.doors.http_answers["/v1/conversations"] = httpx.Response(
        200, json={"items": [named, person], "next_cursor": None}
    )
    assert as_alice.ok("conversations").splitlines() == ["s1 X (1000+ unread)", f"bob  {clock(1)} bob: hi"]


def test_search_narrows_by_place_and_person(as_alice: Any) -> None:
    row = {"stored_at": "1", "from": "bob", "msg_type": MsgType.TEXT, "body": [{"text": "发票"}]}
    as_alice.doors.http_answers["/v1/search"] = httpx.Response(
        200, json={"messages": [row], "next": None, "more": False}
    )
    assert as_alice.ok("search", "发票", "--in", "s1", "--from", "bob").endswith("bob: 发票\n")
    asked = dict(as_alice.doors.requests[-1].url.params)
    assert asked == {"q": "发票", "conversation": "s1", "sender": "bob", "limit": "20"}


def test_a_message_is_shown_with_who_has_received_and_read_it(as_alice: Any) -> None:
    receipts = [{"user_id": "bob", "delivered_at": "1", "read_at": None}]
    row = {"stored_at": "1", "from": "alice", "msg_type": MsgType.TEXT, "body": [{"text": "hi"}], "receipts": receipts}
    as_alice.doors.http_answers["/v1/messages/m1"] = httpx.Response(200, json=row)
    assert as_alice.ok("message", "m1").splitlines()[1] == f"  bob: received {clock(1)}, read —"


def test_sessions_are_shown_with_their_people_and_the_unknown_ones_named(as_alice: Any) -> None:
    session = {"session_id": "s1", "session_name": "A,B", "subscribers": ["alice", "bob"], "unknown_subscribers": ["x"]}
    as_alice.doors.http_answers["/v1/sessions"] = httpx.Response(201, json=session)

    result = as_alice("session", "add", "bob", "x", "--type", "2")

    assert result.stdout == "s1  A,B  [alice, bob]\n"
    assert "unknown, left out: x" in result.stderr
    assert json.loads(as_alice.doors.requests[-1].content) == {"session_type": 2, "subscribers": ["bob", "x"]}


@pytest.mark.parametrize(
    ("command", "change"),
    [
        (("rename", "s1", "X"), {"session_name": "X"}),
        (("invite", "s1", "bob"), {"add": ["bob"]}),
        (("remove", "s1", "bob", "carol"), {"remove": ["bob", "carol"]}),
    ],
)
def test_a_session_is_changed_by_one_request(as_alice: Any, command: tuple[str, ...], change: object) -> None:
    session = {"session_id": "s1", "session_name": "X", "subscribers": ["alice"]}
    as_alice.doors.http_answers["/v1/sessions/s1"] = httpx.Response(200, json=session)

    assert json.loads(as_alice.ok("session", *command, "--json")) == session
    assert json.loads(as_alice.doors.requests[-1].content) == change
