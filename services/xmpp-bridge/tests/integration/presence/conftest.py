"""A component in the bridge's place, and clients stanza by stanza, around a real XMPP server with our module."""

import asyncio
import base64
import ssl
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, cast
from xml.etree.ElementTree import Element, XMLPullParser

import pytest
import pytest_asyncio
from aiohttp import ClientSession, ClientWebSocketResponse
from tlim_devstack.ejabberd import Ejabberd, compile_modules
from tlim_devstack.supervision import Program
from tlim_devstack.xmpp_servers import COMPONENT, DOMAIN
from tlim_protocol.stanzas import CARBONS_NS, DELAY_NS, HINTS_NS, TLIM_NS, Tag
from xmpp_bridge.iq import read_pong, write_ping
from xmpp_bridge.presences import write_draining
from xmpp_bridge.translate import IQ, MESSAGE, PRESENCE, BridgeAddresses
from xmpp_bridge.wire import Wire

STREAM = (
    f"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{DOMAIN}' version='1.0'>"
)
SM = "urn:xmpp:sm:3"
NO_STORE = f"<no-store xmlns='{HINTS_NS}'/>"
MODULES = [Path(__file__).with_name(name) for name in ("mod_killer.erl", "ejabberd_auth_away.erl")]


class FragileEjabberd(Ejabberd):
    """One in which a client can have its session killed, and in which the API starts modules anew."""

    def prepare(self) -> Program:
        program, config = super().prepare(), self.home / "ejabberd.yml"
        library = next(Path("/usr/lib").glob("*/ejabberd-*/ebin")).parent
        compile_modules(MODULES, library, self.home / "modules")
        text = config.read_text().replace("    what:\n", "    what:\n      - restart_module\n")
        text = text.replace("auth_method: internal", "auth_method: [internal, away]")
        assert "restart_module" in text
        config.write_text(text.replace("\nmodules:\n", "\nmodules:\n  mod_killer: {}\n"))
        return program


@pytest.fixture(scope="session")
def fragile_ejabberd() -> type[Ejabberd]:
    return FragileEjabberd


class Word(NamedTuple):
    """One presence of the module: `what` is hello, came, gone, stale or missed; `seq` is confirmed or missed."""

    what: str
    jid: str
    session: str = ""
    seq: int | None = None


def read_word(presence: Element) -> Word | None:
    jid, is_gone = presence.get("from", ""), presence.get("type") == "unavailable"
    if presence.find(Tag.MAILBOX.qualified) is not None:
        assert not is_gone
        return Word("hello", jid)
    if (missed := presence.find(Tag.MISSED.qualified)) is not None:
        assert is_gone
        return Word("missed", jid, seq=int(missed.get("seq", "")))
    session = presence.find(Tag.SESSION.qualified)
    if session is None:
        return None
    what = "gone" if is_gone else "stale" if session.get("stale") == "true" else "came"
    confirmed = session.get("confirmed")
    return Word(what, jid, session.get("id", ""), int(confirmed) if confirmed is not None else None)


class Listener:
    """A component in the bridge's place: sends as the bridge does, and notes what the module says."""

    def __init__(self, server: Any, component: str) -> None:
        port, secret = server.ports.component, server.credentials.component
        self._addresses = BridgeAddresses(DOMAIN, component)
        self._wire = Wire(component, secret, "127.0.0.1", port, self._on_stanza)
        self._up, self._news, self.ended = (asyncio.Event() for _ in range(3))
        self._wire.add_event_handler("session_start", lambda _: self._up.set())
        self._wire.add_event_handler("disconnected", lambda _: self.ended.set())
        self._address = ("127.0.0.1", port)
        self.words: list[Word] = []
        self.diverted: list[str] = []  # the bodies of clients' messages
        self._pongs: set[str] = set()
        self._taken = 0

    async def __aenter__(self) -> Self:
        self._wire.connect(*self._address)
        await asyncio.wait_for(self._up.wait(), 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the stream in order."""
        await self._wire.disconnect(20)

    def _on_stanza(self, stanza: Element) -> None:
        if stanza.tag == PRESENCE and (word := read_word(stanza)) is not None:
            self.words.append(word)
        elif stanza.tag == IQ and (ping := read_pong(stanza, self._addresses)) is not None:
            self._pongs.add(ping)
        elif stanza.tag == MESSAGE:
            self.diverted += [body.text or "" for body in stanza.iter("{jabber:client}body")]
        self._news.set()

    async def _until(self, holds: Callable[[], Any]) -> Any:
        async with asyncio.timeout(20):
            while not (found := holds()):
                self._news.clear()
                await self._news.wait()
        return found

    async def barrier(self) -> None:
        """Return when the server has taken over everything that was sent."""
        ping = str(uuid.uuid4())
        self._wire.send_raw(write_ping(ping, self._addresses))
        await self._until(lambda: ping in self._pongs)

    async def ends(self, *, at_a_ping: bool) -> None:
        """Ping or be silent, and wait until the server has ended the stream."""
        if at_a_ping:
            self._wire.send_raw(write_ping(str(uuid.uuid4()), self._addresses))
        await asyncio.wait_for(self.ended.wait(), 20)

    async def is_sent(self, text: str, *others: "Listener") -> None:
        """Wait until a client's message with this body has come, here or before at one of the others."""
        await self._until(lambda: any(text in one.diverted for one in (self, *others)))

    async def hears_of(self, *users: str) -> None:
        """Wait until something was said of each of them: their sessions speak in any order, and a busy one later."""
        await self._until(lambda: all(self.about(user) for user in users))

    def drain(self) -> None:
        """Say that this bridge leaves."""
        self.send(write_draining(self._addresses))

    async def hears(self, what: str, jid: str) -> Word:
        """Wait for the next such word about this full or bare JID; what was said before it is passed over."""

        def found() -> Word | None:
            for number, word in enumerate(self.words[self._taken :], self._taken):
                if word.what == what and jid in (word.jid, word.jid.partition("/")[0]):
                    self._taken = number + 1
                    return word
            return None

        word: Word = await self._until(found)
        return word

    def about(self, user: str, *kinds: str) -> list[Word]:
        """Return what was said so far of a user."""
        kinds = kinds or ("came", "gone", "stale", "missed")
        return [word for word in self.words if word.what in kinds and word.jid.startswith(f"{user}@{DOMAIN}")]

    async def misses(self, user: str, *seqs: int) -> None:
        """Wait until these have been missed."""
        with suppress(TimeoutError):
            await self._until(lambda: set(seqs) <= {*self.missed(user)})
        assert sorted(set(seqs) - {*self.missed(user)}) == []

    def missed(self, user: str) -> list[int | None]:
        return [word.seq for word in self.about(user, "missed")]

    def deliver(
        self, user: str, *seqs: int, hint: str = NO_STORE, author: str = "carol", recalled: int | None = None
    ) -> None:
        """Send texts with these numbers, which are in their ids too; each can be the notice of a recall."""
        extra = "" if recalled is None else f"<recalled xmlns='{TLIM_NS}' msg_id='m{recalled}'/>"
        for seq in seqs:
            mark = f"<tlim xmlns='{TLIM_NS}' location='server' seq='{seq}' time='1'/>"
            self.send(
                f"<message type='chat' id='m{seq}' from='{author}@{DOMAIN}' to='{user}@{DOMAIN}'>"
                f"<body>text {seq}</body>{mark}{extra}{hint}</message>"
            )

    def chat(self, user: str, text: str) -> None:
        """Send an ordinary message of carol."""
        self.send(f"<message type='chat' from='carol@{DOMAIN}' to='{user}@{DOMAIN}'><body>{text}</body></message>")

    def send(self, stanza: str) -> None:
        self._wire.send_raw(stanza)


class Device:
    """A client, stanza by stanza: it confirms (XEP-0198) what a test says, and ends as a test says."""

    def __init__(self, server: Any, user: str) -> None:
        self.server, self.user = server, user
        self.jid = self._stream_id = ""
        self.received = 0  # stanzas since stream management began
        self.texts: list[str] = []  # the bodies of all messages and carbons, oldest first
        self.late: list[str] = []  # those of messages with a delay (XEP-0203)

    async def log_in(self, resource: str, *, managed: bool, resumable: bool = True) -> Self:
        await self._open_session()
        bind = f"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind>"
        self.send(f"<iq type='set' id='bind'>{bind}</iq><iq type='set' id='cc'><enable xmlns='{CARBONS_NS}'/></iq>")
        self.jid = (await self.take("iq")).findtext(".//{*}jid", "")
        await self.take("iq")
        if managed:
            await self.manage(resumable=resumable)
        return self

    async def manage(self, *, resumable: bool) -> None:
        """Begin stream management."""
        self.send(f"<enable xmlns='{SM}' resume='{str(resumable).lower()}'/>")
        self._stream_id = (await self.take("enabled")).get("id", "")
        self.received = 0

    async def resume(self, *, heard: int) -> None:
        """Take up the session again, with `heard` stanzas received."""
        await self.ask_to_resume(heard=heard)
        await self.take("resumed")

    async def ask_to_resume(self, *, heard: int) -> None:
        await self._open_session()
        self.send(f"<resume xmlns='{SM}' h='{heard}' previd='{self._stream_id}'/>")

    def again(self) -> "Device":
        """Return the same device with another connection: it does not know what becomes of the first one."""
        return copy(self)

    async def _open_session(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.server.ports.xmpp)
        await self._open_stream()
        self.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        await self.take("proceed")
        tls = ssl.create_default_context(cafile=self.server.authority)
        await self._writer.start_tls(tls, server_hostname=DOMAIN)
        await self._open_stream()
        self.send(plain_login(self.user))
        await self.take("success")
        await self._open_stream()

    async def _open_stream(self) -> None:
        self._parser: XMLPullParser[Element] = XMLPullParser(("start", "end"))
        self._depth = 0
        self.send(STREAM)
        await self.take("features")

    def send(self, text: str) -> None:
        self._writer.write(text.encode())

    async def drain(self) -> None:
        """Wait until the server takes more."""
        await self._writer.drain()

    def write(self, text: str, *, to: str = f"carol@{DOMAIN}") -> None:
        """Send a tlim message with this body."""
        mark = f"<tlim xmlns='{TLIM_NS}' location='web'/>"
        self.send(f"<message type='chat' to='{to}'><body>{text}</body>{mark}</message>")

    def announce(self, priority: int = 0) -> None:
        self.send(f"<presence><priority>{priority}</priority></presence>")

    async def take(self, name: str) -> Element:
        """Return the next element of the stream with this name; the server's end of the stream is called `stream`.

        It fails after 20 s of silence, and after 120 s. Megabytes may come before the element.
        """
        async with asyncio.timeout(120):
            while True:
                for event in self._parser.read_events():
                    kind, element = cast("tuple[str, Element]", event)
                    self._depth += 1 if kind == "start" else -1
                    if kind == "end" and self._depth <= 1 and self._note(element) == name:
                        return element
                async with asyncio.timeout(20):
                    data = await self._reader.read(65536)
                assert data, "the server has ended the connection"
                self._parser.feed(data)

    def _note(self, element: Element) -> str:
        name = element.tag.rpartition("}")[2]
        self.received += name in {"message", "presence", "iq"}
        if name == "message":
            texts = [body.text or "" for body in element.iter("{jabber:client}body")]
            self.texts += texts
            self.late += texts if element.find(f"{{{DELAY_NS}}}delay") is not None else []
        return name

    async def gets(self, *texts: str) -> None:
        """Wait until these texts have come."""
        while not set(texts) <= set(self.texts):
            await self.take("message")

    async def settles(self) -> None:
        """Return when the server has taken over what this client sent, and all that it had sent before has come."""
        self.send(f"<iq type='get' id='settled' to='{DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq>")
        while (await self.take("iq")).get("id") != "settled":
            pass

    def confirm(self, *, but: int = 0) -> None:
        """Say that all stanzas have been received, but for the last ones."""
        self.send(f"<a xmlns='{SM}' h='{self.received - but}'/>")

    async def end(self) -> None:
        """End the stream in order."""
        self.send("</stream:stream>")
        await self.take("stream")
        self.lose_network()

    def lose_network(self) -> None:
        self._writer.transport.abort()

    async def breaks(self) -> None:
        """Lose the network, when the server has read all that this client sent."""
        await self.settles()
        self.lose_network()

    async def withdraw(self) -> None:
        self.send("<presence type='unavailable'/>")

    async def replaced(self) -> None:
        """Make way for another login with the same resource."""
        other = await Device(self.server, self.user).log_in(self.jid.partition("/")[2], managed=False)
        other.lose_network()


def secret_of(user: str) -> str:
    return f"secret of {user}"


def plain_login(user: str) -> str:
    secret = base64.b64encode(f"\0{user}\0{secret_of(user)}".encode()).decode()
    return f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>"


@dataclass
class Scene:
    """The server, and what a test makes on it. Everybody has devices of their own, so tests share a server."""

    server: Any
    stack: AsyncExitStack

    async def listener(self, component: str = COMPONENT) -> Listener:
        return await self.stack.enter_async_context(Listener(self.server, component))

    async def person(self) -> str:
        user = f"user-{uuid.uuid4().hex[:12]}"
        await self.server.register(user, secret_of(user))
        return user

    async def kept_for(self, user: str) -> list[str]:
        """Return the texts that the server had in store for somebody who comes now."""
        phone = await self.device(user, "late", managed=False)
        phone.announce()
        await phone.settles()
        phone.send(f"<message type='chat' to='{phone.jid}'><body>all</body></message>")
        await phone.gets("all")
        await phone.end()
        return phone.texts[:-1]

    async def device(self, user: str, resource: str = "phone", **how: bool) -> Device:
        device = Device(self.server, user)
        self.stack.callback(device.lose_network)
        return await device.log_in(resource, **how)

    @asynccontextmanager
    async def browser(self, user: str, *, resumable: bool = False) -> AsyncIterator[ClientWebSocketResponse]:
        """Log in over WebSocket (RFC 7395); leaving the block is a lost network, unless the stream was closed."""
        bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>browser</resource></bind>"
        opening = f"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='{DOMAIN}' version='1.0'/>"
        steps = (
            (opening, "features"),
            (plain_login(user), "<success"),
            (opening, "features"),
            (f"<iq xmlns='jabber:client' type='set' id='bind'>{bind}</iq>", "result"),
            *[(f"<enable xmlns='{SM}' resume='true'/>", "<enabled")] * resumable,
            ("<presence xmlns='jabber:client'/>", "<presence"),
        )
        url = f"ws://127.0.0.1:{self.server.ports.websocket}/ws"
        async with ClientSession() as http, http.ws_connect(url, protocols=["xmpp"]) as socket:
            for text, answer in steps:
                await socket.send_str(text)
                while answer not in await socket.receive_str(timeout=20):
                    pass
            yield socket


@pytest_asyncio.fixture
async def scene_of() -> AsyncIterator[Callable[[Any], Scene]]:
    """Return a function: server → what a test makes on it. All of that ends with the test."""
    async with AsyncExitStack() as stack:
        yield lambda server: Scene(server, stack)


@pytest.fixture
def scene(xmpp_server: Any, scene_of: Callable[[Any], Scene]) -> Scene:
    return scene_of(xmpp_server)
