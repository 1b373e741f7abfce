"""XMPP over WebSocket (RFC 7395) keeps the bounds of XMPP over TCP, before a login and after it, on both servers."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tlim_client.inbox import Plain
from tlim_devstack.ejabberd import Ejabberd
from tlim_devstack.prosody import Prosody
from tlim_devstack.xmpp_servers import XmppSettings


class PublicEjabberd(Ejabberd):
    """One that others can reach too."""

    def __init__(self, settings: XmppSettings) -> None:
        super().__init__(replace(settings, public_address=EVERYWHERE))


class PublicProsody(Prosody):
    """One that others can reach too."""

    def __init__(self, settings: XmppSettings) -> None:
        super().__init__(replace(settings, public_address=EVERYWHERE))


def each_of(*kinds: type[Ejabberd | Prosody]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("xmpp_server", kinds, indirect=True, ids=lambda kind: kind.package, scope="session")


both_servers = each_of(Ejabberd, Prosody)
EVERYWHERE = "0.0.0.0"  # noqa: S104 - nobody else is told of its ports

MIB = 1024 * 1024
LARGEST = MIB // 2
MOST_SESSIONS = 20
MAY_GROW = 256 * MIB  # of an accepted stanza's tree, half a megabyte of empty elements, ejabberd makes 100 MB
FRAMING = "urn:ietf:params:xml:ns:xmpp-framing"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
PING = "<ping xmlns='urn:xmpp:ping'/>"
BIND = "urn:ietf:params:xml:ns:xmpp-bind"
ENDED = {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}


class Browser:
    """One WebSocket, frame by frame."""

    def __init__(self, domain: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.domain, self.socket = domain, socket

    async def open(self) -> None:
        await self.socket.send_str(f"<open xmlns='{FRAMING}' to='{self.domain}' version='1.0'/>")
        await self.until("features")

    async def log_in(self, user: str, password: str) -> None:
        await self.open()
        secret = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        await self.socket.send_str(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{secret}</auth>")
        await self.until("<success")
        await self.open()
        await self.socket.send_str(f"<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='{BIND}'/></iq>")
        await self.until("result")

    async def until(self, text: str) -> str:
        while text not in (frame := await self.socket.receive_str(timeout=20)):
            pass
        return frame

    async def is_ended(self) -> bool:
        """Whether the server ends the connection; what it still says before is passed over."""
        while True:
            message = await self.socket.receive(timeout=20)
            if message.type in ENDED:
                return True

    async def send_pieces(self, text: str, size: int) -> None:
        """Send one message in frames of `size` (RFC 6455 section 5.4)."""
        pieces = [text[start : start + size].encode() for start in range(0, len(text), size)]
        writer = self.socket._writer
        assert writer is not None
        for number, piece in enumerate(pieces):
            opcode, is_last = (1 if number == 0 else 0), number == len(pieces) - 1
            length = len(piece).to_bytes(2)
            head = bytes([opcode | (0x80 if is_last else 0), 0x80 | 126])
            writer.transport.write(head + length + b"\0\0\0\0" + piece)


@asynccontextmanager
async def browser(world: Any, authority: Path | None = None) -> AsyncIterator[Browser]:
    """Connect, with TLS if there is an authority to trust."""
    address = f"{'ws' if authority is None else 'wss'}://127.0.0.1:{world.xmpp.ports.websocket}/ws"
    trust = ssl.create_default_context(cafile=authority) if authority else True
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(address, protocols=["xmpp"], ssl=trust) as socket,
    ):
        yield Browser(world.xmpp.client_side.domain, socket)


def memory_of(world: Any) -> int:
    """Return what the server holds of the machine's memory at most so far, in bytes."""
    status = Path(f"/proc/{world.xmpp.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def message_of(size: int, to: str) -> str:
    """Return a chat message whose tree takes far more room than its text."""
    head, tail = (
        f"<message xmlns='jabber:client' type='chat' to='{to}'><body>hello</body><x xmlns='x'>",
        "</x></message>",
    )
    return head + "<a/>" * ((size - len(head) - len(tail)) // 4) + tail


@both_servers
async def test_browsers_that_come_all_at_once_are_all_served(world: Any) -> None:
    async def come(_: int) -> None:
        async with browser(world) as one:
            await one.open()

    for _ in range(20):
        await asyncio.gather(*map(come, range(20)))


@both_servers
async def test_a_huge_frame_before_a_login_ends_the_connection_and_costs_no_memory(world: Any) -> None:
    before = memory_of(world)
    for _ in range(3):
        async with browser(world) as stranger:
            await stranger.open()
            with suppress(ConnectionError):  # ended before all of it was sent
                await stranger.socket.send_str(message_of(10 * MIB, "bob"))
            assert await stranger.is_ended()
    assert memory_of(world) - before < MAY_GROW
    await world.login("alice")


@both_servers
async def test_a_message_over_the_bound_reaches_nobody_and_one_below_it_does(world: Any) -> None:
    bob = await world.login("bob")
    async with browser(world) as alice:
        await alice.log_in("alice", world.password_of("alice"))
        await alice.socket.send_str(message_of(LARGEST - 1024, bob.jid))
        await bob.expect(Plain)
        await alice.socket.send_str(message_of(LARGEST + 1024, bob.jid))
        assert await alice.is_ended()
    assert len(bob.inbox.all(Plain)) == 1


@both_servers
async def test_a_message_in_pieces_is_counted_as_a_whole(world: Any) -> None:
    bob = await world.login("bob")
    async with browser(world) as alice:
        await alice.log_in("alice", world.password_of("alice"))
        await alice.send_pieces(message_of(LARGEST * 4, bob.jid), 50_000)
        assert await alice.is_ended()
    assert bob.inbox.all(Plain) == []


@both_servers
async def test_with_one_session_more_than_a_person_may_have_the_oldest_ends(world: Any) -> None:
    async with AsyncExitStack() as opened:
        sessions = []
        for _ in range(MOST_SESSIONS + 1):  # one after the other: a server ends a connection that waits for its login
            sessions.append(await opened.enter_async_context(browser(world)))
            await sessions[-1].log_in("alice", world.password_of("alice"))
        assert await sessions[0].is_ended()
        for session in sessions[1:]:
            await session.socket.send_str(f"<iq xmlns='jabber:client' type='get' id='p'>{PING}</iq>")
            await session.until("result")


@each_of(PublicEjabberd, PublicProsody)
async def test_whoever_comes_from_elsewhere_needs_tls_and_the_bounds_are_the_same(world: Any) -> None:
    with pytest.raises(aiohttp.ClientError):
        async with browser(world):
            pass
    async with browser(world, world.xmpp.authority) as alice:
        await alice.log_in("alice", world.password_of("alice"))
        with suppress(ConnectionError):
            await alice.socket.send_str(message_of(LARGEST * 4, "bob"))
        assert await alice.is_ended()
