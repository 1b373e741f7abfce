"""The commands of `tlim` that log in, send and answer, as typed, against a made-up server."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tlim_client.cli.app import app
from tlim_client.compose import text_message
from tlim_client.inbox import Bounced, Refused
from tlim_client.xmpp import ServerAddress
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType
from typer.testing import CliRunner

TEXT = text_message("bob", "alice", "hi, 你好")


def test_login_asks_for_the_password_and_keeps_what_it_got(tlim: Any) -> None:
    out = tlim("login", "alice", "--xmpp", "chat.example.org:5299", typed="secret\n").stdout

    kept = tlim.doors.profiles.load("alice")
    assert "Logged in as alice." in out
    assert (kept.password, kept.fresh_token) == ("secret", "t0k3n")
    assert (kept.xmpp_host, kept.xmpp_port, kept.domain) == ("chat.example.org", 5299, "im.itonglian.com")


@pytest.mark.parametrize(
    ("address", "server"), [("h", ServerAddress("h", 5222)), ("[::1]:5299", ServerAddress("::1", 5299))]
)
def test_login_takes_a_server_without_a_port_and_one_by_its_ipv6_address(
    tlim: Any, address: str, server: ServerAddress
) -> None:
    tlim.ok("login", "alice", "--password-stdin", "--xmpp", address, typed="secret\n")
    assert tlim.doors.profiles.load("alice").server == server


def test_login_keeps_the_bridges_name_where_messages_must_be_addressed_to_it(tlim: Any) -> None:
    component = "bridge.example.org"
    tlim.ok("login", "alice", "--password-stdin", "--component", component, typed="secret\n")
    server = tlim.doors.profiles.load("alice").server
    assert (server.entrance("bob"), server.entrance(None), server.bridge) == (f"bob@{component}", component, component)


def test_without_it_messages_go_to_people_and_to_the_domain() -> None:
    server = ServerAddress("h", domain="example.org")
    assert (server.entrance("bob"), server.entrance(None)) == ("bob@example.org", "example.org")
    assert server.bridge == "bridge.example.org"


@pytest.mark.parametrize("address", ["h:many", "h:99999", "", ":5222", "[::1", "h/path"])
def test_login_refuses_what_is_no_address_of_a_server(tlim: Any, address: str) -> None:
    refused = tlim("login", "alice", "--password-stdin", "--xmpp", address, typed="secret\n")
    assert (refused.exit_code, "is not HOST or HOST:PORT" in refused.stderr) == (2, True)


def test_a_second_login_says_how_to_be_both(as_alice: Any) -> None:
    assert "export TLIM_PROFILE=bob" in as_alice.ok("login", "bob", "--password-stdin", typed="secret")
    assert "several users are logged in (alice, bob)" in as_alice.failing("session", "list")


def test_a_refused_login_keeps_nothing(tlim: Any) -> None:
    tlim.doors.http_answers["/v1/tokens"] = httpx.Response(401, json={"detail": "wrong user or password"})
    assert "wrong user or password" in tlim.failing("login", "alice", "--password-stdin", typed="wrong")
    assert tlim.doors.profiles.users() == []


def test_logout_forgets(as_alice: Any) -> None:
    as_alice.ok("logout", "alice")
    assert "nobody is logged in" in as_alice.failing("history", "bob")


def test_send_waits_for_stored_and_says_so(as_alice: Any) -> None:
    assert "stored as number 7" in as_alice.ok("send", "--to", "bob", "hi")
    (sent,) = as_alice.doors.clients[0].sent
    assert (sent.msg_type, sent.msg_from, sent.msg_to, sent.body) == (MsgType.TEXT, "alice", "bob", [{"text": "hi"}])


def test_send_reads_a_text_from_standard_input(as_alice: Any) -> None:
    as_alice.ok("send", "--to", "bob", "-", typed="a longer\ntext")
    assert as_alice.doors.clients[0].sent[0].body == [{"text": "a longer\ntext"}]


@pytest.mark.parametrize(("text", "typed"), [("-", b"\xff"), ("\udcff", b"")], ids=["standard input", "argument"])
def test_send_says_when_a_text_is_not_utf_8(as_alice: Any, text: str, typed: bytes) -> None:
    refused = CliRunner().invoke(app, ["send", "--to", "bob", text], obj=as_alice.doors, input=typed)
    assert (refused.exit_code, "not UTF-8" in refused.stderr) == (2, True)
    assert as_alice.doors.clients == []


@pytest.mark.parametrize(
    ("option", "kind"), [("--image", MsgType.IMAGE), ("--file", MsgType.FILE), ("--voice", MsgType.VOICE)]
)
def test_send_uploads_a_file_then_sends_its_id(as_alice: Any, tmp_path: Path, option: str, kind: MsgType) -> None:
    as_alice.doors.http_answers["/v1/files"] = httpx.Response(201, json={"file_id": "f1"})
    path = tmp_path / "cat.png"
    path.write_bytes(b"meow")

    shown = json.loads(as_alice.ok("send", "--to", "bob", option, str(path), "--json"))

    (sent,) = as_alice.doors.clients[0].sent
    assert (sent.msg_type, sent.file_ids) == (kind, ["f1"])
    assert shown == {"msg_id": sent.msg_id, "seq": 7, "time": 1_000, "body": [{"file_id": "f1"}]}


def test_send_tells_a_refusal_in_one_line(as_alice: Any) -> None:
    as_alice.doors.answer = lambda sent, stanza_id: Refused(
        ErrorCode.USER_UNKNOWN, sent.msg_id, "to", "bob is not\na user here", stanza_id, ErrorCode.USER_UNKNOWN
    )
    error = as_alice.failing("send", "--to", "bob", "hi")
    assert error == f"tlim: {ErrorCode.USER_UNKNOWN}: bob is not a user here\n"


def test_send_does_not_try_again_to_reach_an_address_that_no_xmpp_server_takes(as_alice: Any) -> None:
    as_alice.doors.answer = lambda _, stanza_id: Bounced("jid-malformed", stanza_id, "bad 'to'")
    assert "jid-malformed" in as_alice.failing("send", "--to", "bob", "hi", "--timeout", "2")
    assert len(as_alice.doors.clients[0].sent) == 1


@pytest.mark.parametrize("content", [[], ["hi", "--file", "pyproject.toml"]])
def test_send_wants_exactly_one_thing_to_send(as_alice: Any, content: list[str]) -> None:
    result = as_alice("send", "--to", "bob", *content)
    assert result.exit_code == 2


@pytest.mark.parametrize("where", [[], ["--to", "bob", "--session", "s1"]])
def test_send_wants_exactly_one_place_to_send_to(as_alice: Any, where: list[str]) -> None:
    assert as_alice("send", *where, "hi").exit_code == 2


def test_send_into_a_session_names_it_and_no_receiver(as_alice: Any) -> None:
    assert "on its way to s1" in as_alice.ok("send", "--session", "s1", "hi")
    (sent,) = as_alice.doors.clients[0].sent
    assert (sent.msg_type, sent.msg_to, sent.body) == (
        MsgType.GROUP_TEXT,
        None,
        [{"session_id": "s1", "text": "hi"}],
    )


@pytest.mark.parametrize(("command", "kind"), [("read", MsgType.READ), ("recall", MsgType.RECALL)])
@pytest.mark.parametrize(
    ("message", "where"),
    [
        ({"conversation": "bob", "session_id": None}, ("bob", None)),
        ({"conversation": "s1", "session_id": "s1"}, (None, "s1")),
    ],
)
def test_read_and_recall_find_out_whom_they_go_to(
    as_alice: Any, command: str, kind: MsgType, message: dict[str, str | None], where: tuple[str | None, ...]
) -> None:
    as_alice.doors.http_answers["/v1/messages/m1"] = httpx.Response(200, json=message)
    as_alice.ok(command, "m1")
    (sent,) = as_alice.doors.clients[0].sent
    assert (sent.msg_type, (sent.msg_to, sent.session_id)) == (kind, where)
    assert [element["msg_id"] for element in sent.body] == ["m1"]


def test_read_takes_several_messages_of_one_session_without_asking(as_alice: Any) -> None:
    as_alice.ok("read", "m1", "m2", "--session", "s1")
    (sent,) = as_alice.doors.clients[0].sent
    assert sent.body == [{"session_id": "s1", "msg_id": "m1"}, {"session_id": "s1", "msg_id": "m2"}]


def test_a_token_that_ended_is_renewed_without_asking(as_alice: Any) -> None:
    profiles = as_alice.doors.profiles
    profiles.save(profiles.load("alice").with_token("old", 1))
    as_alice.doors.http_answers["/v1/sessions"] = httpx.Response(200, json={"items": [], "next_cursor": None})

    as_alice.ok("session", "list")

    assert as_alice.doors.requests[-1].headers["Authorization"] == "Bearer t0k3n"
    assert profiles.load("alice").fresh_token == "t0k3n"


def test_an_answer_nobody_understands_is_one_line_too(as_alice: Any) -> None:
    as_alice.doors.http_answers["/v1/sessions"] = httpx.Response(200, json={"surprise": True})
    assert "not understood" in as_alice.failing("session", "list")


COMMANDS = [
    *("login", "logout", "session", "send", "listen", "read", "recall"),
    *("history", "sync", "conversations", "search", "message", "download"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(tlim: Any, command: str) -> None:
    help_text = tlim.ok(command, "--help")
    assert "Example" in help_text or command == "session"
