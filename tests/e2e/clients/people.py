"""Fresh people for every test: registered, known to the users directory, each with devices and an HTTP client."""

import asyncio
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Self

from tlim_client.compose import text_message
from tlim_client.http import HttpClient
from tlim_client.inbox import Delivered, Stored
from tlim_client.xmpp import STORED_TIMEOUT, ServerAddress, XmppClient
from tlim_devstack.stack import Stack
from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import REGISTRY


def server_of(stack: Stack) -> ServerAddress:
    """Return the address of a stack's XMPP server, with the bridge's name if clients must address the bridge."""
    at = stack.addresses
    return ServerAddress(at.xmpp_host, at.xmpp_port, at.domain, at.ca_file, at.addressed)


@dataclass(frozen=True)
class Person:
    """A person with an account; everything they open is closed when the test ends."""

    user_id: str
    password: str
    stack: Stack
    _open: AsyncExitStack

    @property
    def jid(self) -> str:
        return f"{self.user_id}@{self.stack.addresses.domain}"

    @property
    def entrance(self) -> str:
        """Where a tlim message to this person is sent."""
        return server_of(self.stack).entrance(self.user_id)

    async def device(self, resource: str = "") -> XmppClient:
        """Log in over XMPP with one more device."""
        server = server_of(self.stack)
        return await self._open.enter_async_context(XmppClient(server, self.user_id, self.password, resource=resource))

    async def http(self) -> HttpClient:
        """Get a token and return an HTTP client that uses it."""
        client = await self._open.enter_async_context(HttpClient(self.stack.addresses.gateway))
        await client.log_in(self.user_id, self.password)
        return client

    def text_to(self, other: Self | str, text: str) -> Envelope:
        return text_message(self.user_id, other if isinstance(other, str) else other.user_id, text)


class People:
    """Makes people; `admin` is an HTTP client with the admin scope."""

    def __init__(self, stack: Stack, admin: HttpClient, opened: AsyncExitStack) -> None:
        self._stack, self.admin, self._open = stack, admin, opened

    async def __call__(self, *names: str) -> list[Person]:
        """Return one new person for each name, with that name in the directory."""
        return [await self._make(name) for name in names]

    async def known(self, count: int) -> list[str]:
        """Return the ids of new people who are only in the directory, in their order: they never log in."""
        start = f"known-{secrets.token_hex(4)}"
        user_ids = [f"{start}-{number:04}" for number in range(count)]
        await self.admin.call("POST", "/v1/users", json={"users": [{"user_id": one, "name": one} for one in user_ids]})
        return user_ids

    async def _make(self, name: str) -> Person:
        user_id = f"{name if name.isascii() else 'user'}-{secrets.token_hex(4)}".lower()
        password = await asyncio.to_thread(self._stack.register_user, user_id)
        await self.admin.put_user(user_id, name)
        return self.with_account(user_id, password)

    def with_account(self, user_id: str, password: str) -> Person:
        """Return the person with this account, which was made elsewhere."""
        return Person(user_id, password, self._stack, self._open)


async def next_delivered(client: XmppClient) -> Delivered:
    """Return the next message that was delivered to this device."""
    return await client.expect(Delivered)


async def next_chat(client: XmppClient) -> Delivered:
    """Return the next message between people that was delivered to this device, passing over receipts and notices."""
    return await client.expect(Delivered, lambda event: REGISTRY[event.envelope.msg_type].is_chat)


async def assert_next_is(
    receiver: XmppClient, sender: XmppClient, marker: Envelope, retry_after: float = STORED_TIMEOUT
) -> Stored:
    """Send `marker` and assert that nothing else was delivered to `receiver` before it: deliveries keep their order."""
    stored = await sender.send_until_stored(marker, retry_after=retry_after)
    delivered = await next_delivered(receiver)
    assert delivered.envelope.msg_id == marker.msg_id, f"delivered before the marker: {delivered}"
    return stored


async def ids_in_history(reader: HttpClient, peer: Person) -> list[Any]:
    """Return the msg_ids of the whole conversation with `peer`, oldest first."""
    return [message["msg_id"] for message in await reader.history(peer.user_id, after=0)]
