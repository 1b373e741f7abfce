"""Keeps a slixmpp stream connected until it is closed. The pauses between failed attempts grow longer and longer."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from slixmpp.xmlstream.xmlstream import XMLStream

FIRST_DELAY_S = 0.2
"""The first pause before a new attempt to connect. It is short, so that a restarted server is found quickly. The pause
doubles after each failure."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a keeper waits, in seconds."""

    longest_delay: float
    """The longest pause between two attempts. It keeps us from flooding a dead server with attempts."""

    attempt: float
    """How long one attempt may take. A server that shuts down may accept the connection and then let nobody in."""

    idle: float
    """A connection is pinged after this time, because its other end may have vanished without closing it."""


class StreamKeeper:
    """Connects a stream, and connects it again whenever the connection is lost.

    The owner calls `went_up` when the stream can be used: for a component after the handshake, for a client after the
    login. `ping` must end a connection that does not answer. `on_down` is called when an attempt fails or a connection
    is lost. It gets the reason, and whether there was a connection before. `on_step` is called whenever `run` gets on:
    after each attempt, each ping and each pause. If it is not called for longer than these take, `run` hangs. While no
    connection is wanted, it is not called either.

    This class alone times the attempts. slixmpp cannot hold two attempts at a time, so slixmpp's own next attempt is
    cancelled.
    """

    def __init__(
        self,
        stream: XMLStream,
        host: str,
        port: int,
        patience: Patience,
        *,
        ping: Callable[[], Coroutine[Any, Any, None]],
        on_down: Callable[[str, bool], None],
        on_step: Callable[[], None] | None = None,
    ) -> None:
        self._stream = stream
        self._host, self._port = host, port
        self._patience = patience
        self._ping = ping
        self._on_down = on_down
        self._on_step = on_step or _carry_on
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self.is_wanted = asyncio.Event()  # cleared: no new connection for now
        self.is_wanted.set()
        for event in ("connection_failed", "disconnected"):
            stream.add_event_handler(event, self._went_down)

    @property
    def is_up(self) -> bool:
        """Whether the stream can be used at this moment."""
        return self._up.is_set()

    async def run(self) -> None:
        """Connect, unless an `attempt` has succeeded already, and keep the connection up until cancelled."""
        delays = _delays(self._patience.longest_delay)
        while True:
            self._on_step()
            if not self.is_up:
                await self.is_wanted.wait()
            is_up = self.is_up or await self.attempt()
            self._on_step()
            if is_up:
                delays = _delays(self._patience.longest_delay)
                await self._stays_up()
            await asyncio.sleep(next(delays))

    async def attempt(self) -> bool:
        """Try to connect once; return whether the stream is up."""
        self._down.clear()
        self._stream.connect(self._host, self._port)
        await _first_of(self._up.wait(), self._down.wait(), within=self._patience.attempt)
        if self.is_up:
            return True
        self._went_down("no answer in time")
        self._stream.abort()
        return False

    @property
    def is_down(self) -> bool:
        """Whether the last attempt or connection is over. What its stream still says means nothing."""
        return self._down.is_set()

    def went_up(self) -> bool:
        """Note that the stream can be used. Return whether that is true: an attempt may have been given up just now."""
        if not self.is_down:
            self._up.set()
        return not self.is_down

    async def up(self) -> None:
        """Wait until the stream can be used."""
        await self._up.wait()

    async def close(self, wait: float) -> None:
        """End the stream, and wait `wait` seconds at most until the server ends its side. `run` must be over before."""
        self._stream.cancel_connection_attempt()
        if self._stream.is_connected():
            await self._stream.disconnect(wait)
        sender = self._stream._run_out_filters  # slixmpp never ends its own sending task
        if sender is not None:
            sender.cancel()
            await asyncio.wait([sender])

    async def _stays_up(self) -> None:
        while not self._down.is_set():
            await _first_of(self._down.wait(), within=self._patience.idle)
            if not self._down.is_set():
                await _first_of(self._ping(), self._down.wait())
            self._on_step()

    def _went_down(self, reason: object) -> None:
        if self._down.is_set():  # reported already: slixmpp also reports the connection that was given up
            return
        was_up = self.is_up
        self._up.clear()
        self._down.set()
        self._stream.cancel_connection_attempt()  # this class times the next attempt
        self._on_down(str(reason or "no reason given"), was_up)


def _carry_on() -> None:
    """Tell nobody that the keeper gets on: its owner does not ask."""


async def _first_of(*work: Coroutine[Any, Any, object], within: float | None = None) -> None:
    """Return when one piece of work is done, or after `within` seconds. The rest is cancelled. Raises its exception."""
    tasks = [asyncio.create_task(one) for one in work]  # noqa: TID251 - this library has no tlim_runtime below it
    try:
        done, _ = await asyncio.wait(tasks, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    for task in done:
        task.result()


def _delays(longest: float) -> Iterator[float]:
    jitter = random.SystemRandom()
    limit = FIRST_DELAY_S
    while True:
        yield jitter.uniform(limit / 2, limit)
        limit = min(limit * 2, longest)
