"""Every command of `tlim`, as typed, against a made-up server."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element

import httpx
import pytest
from tlim_client.cli.app import app
from tlim_client.cli.context import Doors
from tlim_client.cli.output import clock
from tlim_client.compose import about, file_message, new_envelope, text_message
from tlim_client.http import HttpClient
from tlim_client.inbox import Bounced, Delivered, Received, Refused, Stored
from tlim_client.profile import Profile, Profiles
from tlim_client.stanzas import CLIENT_NS
from tlim_client.xmpp import ServerAddress, XmppClient
from tlim_protocol.envelope import Envelope, read_envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType
from typer.testing import CliRunner, Result

TEXT = text_message("bob", "alice", "hi, 你好")


class FakeXmpp(XmppClient):
    """A made-up server. It answers each message with `answers`, and has some events waiting at the start."""

    def __init__(self, profile: Profile, waiting: list[Received], answer: Callable[[Envelope, str], Received]) -> None:
        super().__init__(profile.server, profile.user, profile.password)
        self._waiting, self._answer_to = waiting, answer
        self.sent: list[Envelope] = []

    async def connect(self, within: float = 20) -> None:
        del within
        for event in self._waiting:
            self.inbox.put(event)

    async def close(self) -> None:
        pass

    def send_stanza(self, stanza: Element) -> None:
        self.sent.append(read_envelope(stanza.findtext(f"{{{CLIENT_NS}}}body"), self.user))
        self.inbox.put(self._answer_to(self.sent[-1], stanza.get("id", "")))


class FakeDoors(Doors):
    """Doors to a made-up gateway and XMPP server; remembers what went through them."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.profiles = Profiles(folder)
        self.waiting: list[Received] = []
        self.answer: Callable[[Envelope, str], Received] = lambda sent, stanza: Stored(sent.msg_id, 7, 1_000, stanza)
        self.requests: list[httpx.Request] = []
        self.clients: list[FakeXmpp] = []
        self.http_answers: dict[str, httpx.Response] = {
            "/v1/tokens": httpx.Response(200, json={"access_token": "t0k3n", "expires_in": 3600})
        }

    def http(self, gateway: str, token: str | None = None) -> HttpClient:
        return HttpClient(gateway, token=token, transport=httpx.MockTransport(self._serve))

    def xmpp(self, profile: Profile) -> XmppClient:
        self.clients.append(FakeXmpp(profile, self.waiting, self.answer))
        return self.clients[-1]

    def _serve(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.http_answers.get(request.url.path, httpx.Response(404, json={"detail": "nothing here"}))


class Terminal:
    """Types `tlim …` as a person would."""

    def __init__(self, doors: FakeDoors) -> None:
        self.doors = doors

    def __call__(self, *arguments: str, typed: str = "") -> Result:
        return CliRunner().invoke(app, list(arguments), obj=self.doors, input=typed, env={"TLIM_PROFILE": None})

    def ok(self, *arguments: str, typed: str = "") -> str:
        result = self(*arguments, typed=typed)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return result.stdout

    def failing(self, *arguments: str, typed: str = "") -> str:
        result = self(*arguments, typed=typed)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
        return result.stderr


@pytest.fixture
def tlim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("TLIM_PASSWORD", "TLIM_GATEWAY", "TLIM_XMPP", "TLIM_DOMAIN", "TLIM_CA_FILE", "TLIM_COMPONENT"):
        monkeypatch.delenv(name, raising=False)
    return Terminal(FakeDoors(tmp_path / "profiles"))


@pytest.fixture
def as_alice(tlim: Terminal) -> Terminal:
    tlim.ok("login", "alice", "--password-stdin", typed="secret\n")
    return tlim


def test_login_asks_for_the_password_and_keeps_what_it_got(tlim: Terminal) -> None:
    out = tlim("login", "alice", "--xmpp", "chat.example.org:5299", typed="secret\n").stdout

    kept = tlim.doors.profiles.load("alice")
    assert "Logged in as alice." in out
    assert (kept.password, kept.fresh_token) == ("secret", "t0k3n")
    assert (kept.xmpp_host, kept.xmpp_port, kept.domain) == ("chat.example.org", 5299, "im.itonglian.com")


@pytest.mark.parametrize(
    ("address", "server"), [("h", ServerAddress("h", 5222)), ("[::1]:5299", ServerAddress("::1", 5299))]
)
def test_login_takes_a_server_without_a_port_and_one_by_its_ipv6_address(
    tlim: Terminal, address: str, server: ServerAddress
) -> None:
    tlim.ok("login", "alice", "--password-stdin", "--xmpp", address, typed="secret\n")
    assert tlim.doors.profiles.load("alice").server == server


def test_login_keeps_the_bridges_name_where_messages_must_be_addressed_to_it(tlim: Terminal) -> None:
    component = "bridge.example.org"
    tlim.ok("login", "alice", "--password-stdin", "--component", component, typed="secret\n")
    server = tlim.doors.profiles.load("alice").server
    assert (server.entrance("bob"), server.entrance(None), server.bridge) == (f"bob@{component}", component, component)


def test_without_it_messages_go_to_people_and_to_the_domain() -> None:
    server = ServerAddress("h", domain="example.org")
    assert (server.entrance("bob"), server.entrance(None)) == ("bob@example.org", "example.org")
    assert server.bridge == "bridge.example.org"


@pytest.mark.parametrize("address", ["h:many", "h:99999", "", ":5222", "[::1", "h/path"])
def test_login_refuses_what_is_no_address_of_a_server(tlim: Terminal, address: str) -> None:
    refused = tlim("login", "alice", "--password-stdin", "--xmpp", address, typed="secret\n")
    assert (refused.exit_code, "is not HOST or HOST:PORT" in refused.stderr) == (2, True)


def test_a_second_login_says_how_to_be_both(as_alice: Terminal) -> None:
    assert "export TLIM_PROFILE=bob" in as_alice.ok("login", "bob", "--password-stdin", typed="secret")
    assert "several users are logged in (alice, bob)" in as_alice.failing("session", "list")


def test_a_refused_login_keeps_nothing(tlim: Terminal) -> None:
    tlim.doors.http_answers["/v1/tokens"] = httpx.Response(401, json={"detail": "wrong user or password"})
    assert "wrong user or password" in tlim.failing("login", "alice", "--password-stdin", typed="wrong")
    assert tlim.doors.profiles.users() == []


def test_logout_forgets(as_alice: Terminal) -> None:
    as_alice.ok("logout", "alice")
    assert "nobody is logged in" in as_alice.failing("history", "bob")


def test_send_waits_for_stored_and_says_so(as_alice: Terminal) -> None:
    assert "stored as number 7" in as_alice.ok("send", "--to", "bob", "hi")
    (sent,) = as_alice.doors.clients[0].sent
    assert (sent.msg_type, sent.msg_from, sent.msg_to, sent.body) == (MsgType.TEXT, "alice", "bob", [{"text": "hi"}])


def test_send_reads_a_text_from_standard_input(as_alice: Terminal) -> None:
    as_alice.ok("send", "--to", "bob", "-", typed="a longer\ntext")
    assert as_alice.doors.clients[0].sent[0].body == [{"text": "a longer\ntext"}]


@pytest.mark.parametrize(("text", "typed"), [("-", b"\xff"), ("\udcff", b"")], ids=["standard input", "argument"])
def test_send_says_when_a_text_is_not_utf_8(as_alice: Terminal, text: str, typed: bytes) -> None:
    refused = CliRunner().invoke(app, ["send", "--to", "bob", text], obj=as_alice.doors, input=typed)
    assert (refused.exit_code, "not UTF-8" in refused.stderr) == (2, True)
    assert as_alice.doors.clients == []


@pytest.mark.parametrize(
    ("option", "kind"), [("--image", MsgType.IMAGE), ("--file", MsgType.FILE), ("--voice", MsgType.VOICE)]
)
def test_send_uploads_a_file_then_sends_its_id(as_alice: Terminal, tmp_path: Path, option: str, kind: MsgType) -> None:
    as_alice.doors.http_answers["/v1/files"] = httpx.Response(201, json={"file_id": "f1"})
    path = tmp_path / "cat.png"
    path.write_bytes(b"meow")

    shown = json.loads(as_alice.ok("send", "--to", "bob", option, str(path), "--json"))

    (sent,) = as_alice.doors.clients[0].sent
    assert (sent.msg_type, sent.file_ids) == (kind, ["f1"])
    assert shown == {"msg_id": sent.msg_id, "seq": 7, "time": 1_000, "body": [{"file_id": "f1"}]}


def test_send_tells_a_refusal_in_one_line(as_alice: Terminal) -> None:
    as_alice.doors.answer = lambda sent, stanza_id: Refused(
        ErrorCode.USER_UNKNOWN, sent.msg_id, "to", "bob is not\na user here", stanza_id, ErrorCode.USER_UNKNOWN
    )
    error = as_alice.failing("send", "--to", "bob", "hi")
    assert error == f"tlim: {ErrorCode.USER_UNKNOWN}: bob is not a user here\n"


def test_send_does_not_try_again_to_reach_an_address_that_no_xmpp_server_takes(as_alice: Terminal) -> None:
    as_alice.doors.answer = lambda _, stanza_id: Bounced("jid-malformed", stanza_id, "bad 'to'")
    assert "jid-malformed" in as_alice.failing("send", "--to", "bob", "hi", "--timeout", "2")
    assert len(as_alice.doors.clients[0].sent) == 1


@pytest.mark.parametrize("content", [[], ["hi", "--file", "pyproject.toml"]])
def test_send_wants_exactly_one_thing_to_send(as_alice: Terminal, content: list[str]) -> None:
    result = as_alice("send", "--to", "bob", *content)
    assert result.exit_code == 2


@pytest.mark.parametrize("where", [[], ["--to", "bob", "--session", "s1"]])
def test_send_wants_exactly_one_place_to_send_to(as_alice: Terminal, where: list[str]) -> None:
    assert as_alice("send", *where, "hi").exit_code == 2


def test_send_into_a_session_names_it_and_no_receiver(as_alice: Terminal) -> None:
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
    as_alice: Terminal, command: str, kind: MsgType, message: dict[str, str | None], where: tuple[str | None, ...]
) -> None:
    as_alice.doors.http_answers["/v1/messages/m1"] = httpx.Response(200, json=message)
    as_alice.ok(command, "m1")
    (sent,) = as_alice.doors.clients[0].sent
    assert (sent.msg_type, (sent.msg_to, sent.session_id)) == (kind, where)
    assert [element["msg_id"] for element in sent.body] == ["m1"]


def test_read_takes_several_messages_of_one_session_without_asking(as_alice: Terminal) -> None:
    as_alice.ok("read", "m1", "m2", "--session", "s1")
    (sent,) = as_alice.doors.clients[0].sent
    assert sent.body == [{"session_id": "s1", "msg_id": "m1"}, {"session_id": "s1", "msg_id": "m2"}]


def test_listen_prints_each_message_once_and_reports_it_as_received(as_alice: Terminal) -> None:
    delivered = Delivered(TEXT, "bob@d", "s", seq=1, time=1)
    last = Delivered(text_message("bob", "alice", "bye"), "bob@d", "s", seq=2, time=2)
    as_alice.doors.waiting = [delivered, Stored("m", 1, 2), delivered, last]

    result = as_alice("listen", "--count", "2")

    assert [line.partition("bob: ")[2] for line in result.stdout.splitlines()] == ["hi, 你好", "bye"]
    assert result.stderr == "Listening as alice; Ctrl-C ends.\n"
    receipts = as_alice.doors.clients[0].sent
    assert [(sent.msg_type, sent.msg_to) for sent in receipts] == [(MsgType.RECEIVED, "bob")] * 2
    assert [sent.body for sent in receipts] == [[{"msg_id": TEXT.msg_id}], [{"msg_id": last.envelope.msg_id}]]


def test_listen_sends_nothing_when_told_so(as_alice: Terminal) -> None:
    as_alice.doors.waiting = [Delivered(TEXT, "bob@d", "s", seq=1, time=1)]
    as_alice("listen", "--count", "1", "--no-receipts")
    assert as_alice.doors.clients[0].sent == []


def test_listen_shows_receipts_and_notices_but_neither_counts_nor_answers_them(as_alice: Terminal) -> None:
    read = about("bob", MsgType.READ, ["m1"], session_id="s1")
    renamed = new_envelope("bob", None, MsgType.SESSION_CHANGED, {"session_id": "s1", "session_name": "X"})
    as_alice.doors.waiting = [Delivered(one, "bob@d", "s", seq=1, time=1) for one in (read, renamed, TEXT)]

    lines = as_alice("listen", "--count", "1").stdout.splitlines()

    shown = ["[read receipt] m1", "[session changed] s1 X", "hi, 你好"]
    assert [line.partition("bob: ")[2] for line in lines] == shown
    assert len(as_alice.doors.clients[0].sent) == 1


def test_listen_saves_what_is_shared_and_a_lost_file_does_not_end_it(as_alice: Terminal, tmp_path: Path) -> None:
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


def test_history_is_printed_oldest_first(as_alice: Terminal) -> None:
    rows = [
        {"seq": seq, "stored_at": "1", "from": "bob", "msg_type": MsgType.TEXT, "body": [{"text": f"number {seq}"}]}
        for seq in (2, 1)
    ]
    as_alice.doors.http_answers["/v1/conversations/bob/messages"] = httpx.Response(
        200, json={"messages": rows, "next": 1, "more": False}
    )
    assert [line[-8:] for line in as_alice.ok("history", "bob").splitlines()] == ["number 1", "number 2"]
    assert [json.loads(line)["seq"] for line in as_alice.ok("history", "bob", "--json").splitlines()] == [1, 2]


def test_a_recalled_message_is_shown_as_such(as_alice: Terminal) -> None:
    row = {"stored_at": "1", "from": "bob", "msg_type": MsgType.TEXT, "body": [], "recalled": True}
    as_alice.doors.http_answers["/v1/conversations/bob/messages"] = httpx.Response(
        200, json={"messages": [row], "next": None, "more": False}
    )
    assert as_alice.ok("history", "bob").endswith("bob: [recalled]\n")


def test_sync_ends_with_the_place_to_go_on_from(as_alice: Terminal) -> None:
    row = {"seq": 7, "stored_at": "1", "from": "bob", "msg_type": MsgType.RECEIVED, "body": [{"msg_id": "m1"}]}
    as_alice.doors.http_answers["/v1/sync"] = httpx.Response(200, json={"items": [row], "next": 7, "more": False})

    shown, last = as_alice.ok("sync", "--after", "3").splitlines()

    assert shown.endswith("bob: [received receipt] m1")
    assert last == "--after 7"
    assert as_alice.doors.requests[-1].url.params["after"] == "3"


def test_conversations_are_shown_with_what_is_unread(as_alice: Terminal) -> None:
    last = {"stored_at": "1", "from": "bob", "msg_type": MsgType.TEXT, "body": [{"text": "hi"}]}
    named = {"conversation": "s1", "session_name": "X", "unread": 1000, "unread_capped": True, "last": None}
    person = {"conversation": "bob", "session_name": None, "unread": 0, "unread_capped": False, "last": last}
    as_alice.doors.http_answers["/v1/conversations"] = httpx.Response(
        200, json={"items": [named, person], "next_cursor": None}
    )
    assert as_alice.ok("conversations").splitlines() == ["s1 X (1000+ unread)", f"bob  {clock(1)} bob: hi"]


def test_search_narrows_by_place_and_person(as_alice: Terminal) -> None:
    row = {"stored_at": "1", "from": "bob", "msg_type": MsgType.TEXT, "body": [{"text": "发票"}]}
    as_alice.doors.http_answers["/v1/search"] = httpx.Response(
        200, json={"messages": [row], "next": None, "more": False}
    )
    assert as_alice.ok("search", "发票", "--in", "s1", "--from", "bob").endswith("bob: 发票\n")
    asked = dict(as_alice.doors.requests[-1].url.params)
    assert asked == {"q": "发票", "conversation": "s1", "sender": "bob", "limit": "20"}


def test_a_message_is_shown_with_who_has_received_and_read_it(as_alice: Terminal) -> None:
    receipts = [{"user_id": "bob", "delivered_at": "1", "read_at": None}]
    row = {"stored_at": "1", "from": "alice", "msg_type": MsgType.TEXT, "body": [{"text": "hi"}], "receipts": receipts}
    as_alice.doors.http_answers["/v1/messages/m1"] = httpx.Response(200, json=row)
    assert as_alice.ok("message", "m1").splitlines()[1] == f"  bob: received {clock(1)}, read —"


def test_sessions_are_shown_with_their_people_and_the_unknown_ones_named(as_alice: Terminal) -> None:
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
def test_a_session_is_changed_by_one_request(as_alice: Terminal, command: tuple[str, ...], change: object) -> None:
    session = {"session_id": "s1", "session_name": "X", "subscribers": ["alice"]}
    as_alice.doors.http_answers["/v1/sessions/s1"] = httpx.Response(200, json=session)

    assert json.loads(as_alice.ok("session", *command, "--json")) == session
    assert json.loads(as_alice.doors.requests[-1].content) == change


def test_a_token_that_ended_is_renewed_without_asking(as_alice: Terminal) -> None:
    profiles = as_alice.doors.profiles
    profiles.save(profiles.load("alice").with_token("old", 1))
    as_alice.doors.http_answers["/v1/sessions"] = httpx.Response(200, json={"items": [], "next_cursor": None})

    as_alice.ok("session", "list")

    assert as_alice.doors.requests[-1].headers["Authorization"] == "Bearer t0k3n"
    assert profiles.load("alice").fresh_token == "t0k3n"


def test_an_answer_nobody_understands_is_one_line_too(as_alice: Terminal) -> None:
    as_alice.doors.http_answers["/v1/sessions"] = httpx.Response(200, json={"surprise": True})
    assert "not understood" in as_alice.failing("session", "list")


COMMANDS = [
    *("login", "logout", "session", "send", "listen", "read", "recall"),
    *("history", "sync", "conversations", "search", "message", "download"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(tlim: Terminal, command: str) -> None:
    help_text = tlim.ok(command, "--help")
    assert "Example" in help_text or command == "session"
