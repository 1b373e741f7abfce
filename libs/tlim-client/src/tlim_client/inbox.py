"""The events that a client receives over XMPP, as types, and an inbox to wait for them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode

from tlim_client.failures import ClientError, NotReceivedError


@dataclass(frozen=True, slots=True)
class Delivered:
    """A tlim message for this user (docs/wire-protocol.md, "Addresses and identity").

    `seq` and `time` (epoch ms) are the values with which the server stored the message. Both are None in one case: an
    XMPP server without our module copies a message of our other device before it is stored.

    `delayed` is true when the message waited for us, because none of our devices was there.
    """

    envelope: Envelope
    from_jid: str
    stanza_id: str
    seq: int | None = None
    time: int | None = None
    delayed: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """The server has committed a message of ours (docs/wire-protocol.md, "Promises"): `time` in epoch milliseconds.

    `stanza_id` names the stanza that is answered. A resend is a stanza of its own. Its answer is equal.
    """

    msg_id: str
    seq: int
    time: int
    stanza_id: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The server refused a message of ours (docs/wire-protocol.md, "Refusals"); `body` is the bare code.

    `retry_after` is there after error-017: the seconds until the message would pass.
    """

    code: ErrorCode
    msg_id: str | None
    field: str | None
    text: str
    stanza_id: str
    body: str
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """All that we missed while we were away has come, up to `seq` (docs/wire-protocol.md, "What was missed").

    `more` is true when something was left out, which only `/v1/sync` has: all but the newest 10,000 messages, or
    receipts, of which there were more than 100.
    """

    seq: int
    more: bool


@dataclass(frozen=True, slots=True)
class Plain:
    """Ordinary XMPP chat, which tlim never touches."""

    from_jid: str
    body: str
    stanza_id: str


@dataclass(frozen=True, slots=True)
class Bounced:
    """A stanza of ours came back from the XMPP server itself, with an RFC 6120 error condition."""

    condition: str
    stanza_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Carbon:
    """A copy of what another device of this user sent or received (XEP-0280)."""

    sent: bool
    message: Delivered | Plain


Received = Delivered | Stored | Refused | CaughtUp | Plain | Bounced | Carbon
R = TypeVar("R", Delivered, Stored, Refused, CaughtUp, Plain, Bounced, Carbon)
T = TypeVar("T")


def anything(_: Received) -> bool:
    """Accept every event. This is the default condition."""
    return True


class Inbox:
    """All received events, in order. `history` keeps all of them; `take` hands each event out once."""

    def __init__(self) -> None:
        self.history: list[Received] = []
        self._waiting: list[Received] = []
        self._news = asyncio.Event()
        self._end: ClientError | None = None

    def put(self, event: Received) -> None:
        """Add an event and wake all waiting tasks."""
        self.history.append(event)
        self._waiting.append(event)
        self._news.set()

    def end(self, reason: ClientError) -> None:
        """Raise `reason` to everybody that waits for an event, now and later: none will come."""
        self._end = reason
        self._news.set()

    def all(self, kind: type[R]) -> list[R]:
        """Every event of that kind so far, taken or not, oldest first."""
        return [event for event in self.history if isinstance(event, kind)]

    async def take(self, kind: type[R], where: Callable[[R], bool] = anything, within: float | None = 20) -> R:
        """Return the oldest untaken event of `kind` for which `where` holds. Wait for it up to `within` seconds.

        Raises NotReceivedError after that time; its text lists the events that came instead. With None it waits for
        ever.
        """
        try:
            return await self.pick(lambda event: event if isinstance(event, kind) and where(event) else None, within)
        except NotReceivedError as error:
            raise NotReceivedError(f"no {kind.__name__} as expected: {error}") from None

    async def pick(self, choose: Callable[[Received], T | None], within: float | None) -> T:
        """Take the oldest untaken event for which `choose` returns a value, and return that value. Wait like `take`."""
        try:
            async with asyncio.timeout(within):
                while (chosen := self._pop(choose)) is None:
                    if self._end is not None:
                        raise self._end
                    self._news.clear()
                    await self._news.wait()
                return chosen
        except TimeoutError:
            came = ", ".join(map(repr, self._waiting[-5:])) or "nothing"
            raise NotReceivedError(f"waited {within:g} s; unread: {came}") from None

    async def next(self) -> Received:
        """Return the oldest untaken event of any kind, waiting for it without limit."""
        return await self.pick(lambda event: event, None)

    def _pop(self, choose: Callable[[Received], T | None]) -> T | None:
        for position, event in enumerate(self._waiting):
            chosen = choose(event)
            if chosen is not None:
                del self._waiting[position]
                return chosen
        return None
