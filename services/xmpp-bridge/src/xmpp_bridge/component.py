"""The connection to the XMPP server as an XEP-0114 component: kept up for ever, in order, with a barrier."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from xml.etree.ElementTree import Element

from slixmpp.stanza import StreamError
from tlim_runtime.background import Background
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable
from tlim_runtime.pulse import beat
from tlim_xmpp.keeper import Patience, StreamKeeper

from xmpp_bridge.doubt import Doubt
from xmpp_bridge.iq import answer_iq, read_pong, write_ping
from xmpp_bridge.presences import write_draining
from xmpp_bridge.translate import IQ, MESSAGE, BridgeAddresses
from xmpp_bridge.wire import Wire

logger = get_logger(__name__)

LONGEST_DELAY_S = 15.0
"""The longest pause between two attempts to connect."""

IDLE_PING_S = 30.0
"""A quiet connection is pinged after this time. A dead one is noticed one time-out later."""

CLOSE_S = 2.0
"""How long we wait for the server to end its side of the stream."""


class ComponentDown(Unavailable):
    """There is no connection to the XMPP server, or it did not answer in time."""


class ComponentLost(ComponentDown):
    """The XMPP server ended the connection before it had taken over what was sent."""


class Component:
    """Keeps one component connection up. Incoming messages go to the callback of `start`; stanzas are sent in order."""

    def __init__(
        self,
        addresses: BridgeAddresses,
        secret: str,
        host: str,
        port: int,
        *,
        timeout: timedelta = timedelta(seconds=15),
    ) -> None:
        self._addresses = addresses
        self._on_request: Callable[[Element], bool] = _decline
        self._on_presence: Callable[[Element], None] = _ignore
        self._on_up: Callable[[], None] = _bear_it
        self._on_lost: Callable[[], None] = _bear_it
        self._timeout = timeout.total_seconds()
        self._wire = Wire(addresses.component, secret, host, port, self._on_stanza)
        self._keeper = StreamKeeper(
            self._wire,
            host,
            port,
            Patience(longest_delay=LONGEST_DELAY_S, attempt=self._timeout, idle=IDLE_PING_S),
            ping=self._ping_idle,
            on_down=self._went_down,
            on_step=partial(beat, first=True),
        )
        self._keeping = Background("XMPP connection", self._keeper.run)
        self._messages = Doubt(_ignore, self.barrier, self._wire.abort)
        self._wire.add_event_handler("session_start", self._went_up)
        self._wire.add_event_handler("stream_error", self._note_stream_error)
        self._reason = "not connected yet"
        self._stream_error = ""
        self._pongs: dict[str, asyncio.Future[None]] = {}
        self._numbers = itertools.count(1)

    def start(
        self,
        on_message: Callable[[Element], None],
        on_request: Callable[[Element], bool] | None = None,
        *,
        on_presence: Callable[[Element], None] | None = None,
        on_up: Callable[[], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        """Connect, and connect again whenever the connection is lost, until `close`.

        `on_request` gets each `<iq>` first. It returns False to leave the request to service discovery. `on_up` is
        called when a connection can be used, `on_lost` when it is lost, before the next one is made.
        """
        self._messages = Doubt(on_message, self.barrier, self._wire.abort)
        self._on_presence = on_presence or _ignore
        self._on_up = on_up or _bear_it
        self._on_request = on_request or _decline
        self._on_lost = on_lost or _bear_it
        self._keeping.start()
        self._messages.start()

    async def leave(self, drained: Callable[[], Awaitable[None]]) -> None:
        """Have the server send nothing new here, and return when all that it sent is in safe hands.

        `drained` waits until what came in so far is stored. Until `close` the server keeps back what the same senders
        write next, for 13 s at most, so that another bridge does not overtake this one. Raises ComponentDown.
        """
        self.send(write_draining(self._addresses))
        for _ in range(2):  # another node of the server may send something until it hears that we leave
            await self.barrier()
            await drained()

    async def close(self) -> None:
        """Close the stream. Everything that the server sent before the end of its own stream is still read."""
        await self._keeping.stop()
        await self._keeper.close(wait=CLOSE_S)
        await self._messages.stop()

    async def connected(self) -> None:
        """Wait until there is a connection on which stanzas can be sent; raises ComponentDown after the time-out."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._keeper.up()
        except TimeoutError:
            raise ComponentDown(f"no XMPP connection: {self._reason}") from None

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._keeper.is_up

    async def ping(self) -> None:
        """Raise ComponentDown unless there is a connection at this moment."""
        if not self.is_connected:
            raise ComponentDown(f"no XMPP connection: {self._reason}")
        await self._keeping.ping()

    @property
    def is_in_doubt(self) -> bool:
        """Whether what was read before may have come over a connection that is no more (doubt.py)."""
        return self._messages.is_open

    def abort(self) -> None:
        """End the connection at once; a new one is made."""
        self._wire.abort()

    def pause(self) -> None:
        """Stop reading for now. The server's buffers fill, and then its senders wait (back-pressure)."""
        if self._wire.transport is not None and self._wire.transport.is_reading():
            self._wire.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        transport = self._wire.transport
        if transport is not None and not transport.is_closing() and not transport.is_reading():
            transport.resume_reading()

    def send(self, stanzas: str) -> None:
        """Write stanzas behind everything sent before; raises ComponentDown without a connection."""
        if not self.is_connected:
            raise ComponentDown(f"no XMPP connection: {self._reason}")
        self._wire.send_raw(stanzas)

    async def barrier(self) -> None:
        """Return when the server has taken over everything sent so far; raises ComponentDown."""
        ping_id = f"barrier-{next(self._numbers)}"
        pong = asyncio.get_running_loop().create_future()
        self._pongs[ping_id] = pong
        try:
            self.send(write_ping(ping_id, self._addresses))
            await self._in_time(pong)
        finally:
            del self._pongs[ping_id]

    async def _in_time(self, answer: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await answer
        except TimeoutError:
            # The connection is half-open or stuck, so a new one is made. What is unacknowledged is sent again over it.
            self._wire.abort()
            raise ComponentDown("the XMPP server did not answer in time") from None

    def _on_stanza(self, stanza: Element) -> None:
        try:
            if stanza.tag == MESSAGE:
                self._messages.take(stanza)
            elif stanza.tag == IQ:
                self._on_iq(stanza)
            else:
                self._on_presence(stanza)
        except Exception:  # an exception that leaves this callback would close the connection for all users
            logger.exception("a stanza could not be handled", stanza=stanza.tag, sender=stanza.get("from"))

    def _on_iq(self, iq: Element) -> None:
        pong = self._pongs.get(read_pong(iq, self._addresses) or "")
        if pong is not None and not pong.done():
            pong.set_result(None)
            return
        if self._on_request(iq):
            return
        answer = answer_iq(iq)
        if answer is not None:
            with contextlib.suppress(ComponentDown):  # without a connection nobody waits for this answer
                self.send(answer)

    async def _ping_idle(self) -> None:
        with contextlib.suppress(ComponentDown):  # a failed ping has already ended the connection
            await self.barrier()

    def _went_up(self, _event: object) -> None:
        if self._keeper.went_up():
            logger.info("component connected")
            self._on_up()

    def _went_down(self, reason: str, was_up: bool) -> None:
        self._reason, self._stream_error = self._stream_error or reason, ""
        logger.warning("component connection lost" if was_up else "component not connected", reason=self._reason)
        if was_up:
            self._messages.connection_lost()
            self._on_lost()
        for pong in self._pongs.values():
            if not pong.done():
                pong.set_exception(ComponentLost(f"the XMPP connection was lost: {self._reason}"))

    def _note_stream_error(self, error: StreamError) -> None:
        self._stream_error = f"the server says {error['condition']}"


def _ignore(_stanza: Element) -> None:
    """Drop a message or a presence: the default until `start` gives a callback."""


def _decline(_iq: Element) -> bool:
    """Leave all requests to service discovery."""
    return False


def _bear_it() -> None:
    """Do nothing about a connection that came or went: the keeper makes another one anyway."""
