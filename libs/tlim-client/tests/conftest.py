"""A terminal in which `tlim …` is typed, against a made-up server."""

from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element

import httpx
import pytest
from tlim_client.cli.app import app
from tlim_client.cli.context import Doors
from tlim_client.http import HttpClient
from tlim_client.inbox import Received, Stored
from tlim_client.profile import Profile, Profiles
from tlim_client.stanzas import CLIENT_NS
from tlim_client.xmpp import XmppClient
from tlim_protocol.envelope import Envelope, read_envelope
from typer.testing import CliRunner, Result


class FakeXmpp(XmppClient):
    """A made-up server. It answers each message with `answer`, and has some events waiting at the start."""

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
