"""One uninterrupted reading of a durable consumer: from a reset of its delivery until anything goes wrong.

nats-py's `fetch` waits for a batch to fill, and can stay dead after a restart of the server (nats.py #504). So this
module makes the pull requests itself. They stay open at the server, and a message comes the moment it is stored. The
server's heartbeats show within seconds that it has forgotten us. Anything that is not exactly in order ends the
session. The next session starts with a reset: delivery goes on right after the last acknowledgement.

A reset leaves the open requests of a process that hangs, or whose host has gone, and these swallow messages. So a new
session waits until there is no other request, and takes only the delivery that is the first after its reset. A consumer
with a group has pinned clients (ADR-42): only the client that names the pin in its requests gets messages. A new
session takes the pin away, which ends the requests that name it. Requests without a pin are short.
"""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from tlim_protocol.streams import ConsumerSpec

from tlim_runtime.background import Background
from tlim_runtime.broker import Broker
from tlim_runtime.delivery import NANOSECONDS, Delivery, nothing, read
from tlim_runtime.outages import BrokerUnavailable
from tlim_runtime.pulse import waiting

HEARTBEAT_S = 2.0
"""The server sends something at least this often. After three times as long without a sign the session is lost."""

PINNED_S = 60.0
"""How long a pull request stays open that names a pin. If our side forgets one, the server drops it after this time."""

UNPINNED_S = 1.0
"""How long a request of a group stays open without a pin. A bridge takes a shard over after two seconds of silence, and
the requests of a bridge that hangs are over by then."""

ALONE_S = 5.0
"""How long a request of a consumer without a group stays open. If its process hangs, the next one waits for its end."""

STALL_S = 5.0
"""After this long without a message we ask the server whether there is really nothing to do."""

EXACT_S = 1.0
"""We read the server's time from its answers. A slower answer is not used: the time may be wrong by half of it."""

SETTLE_S = 2.0
"""How long we wait until the server has counted our acknowledgements. It takes milliseconds. If the wait is too short,
messages are delivered again, which is harmless."""

MAX_BYTES = 16 * 1024**2 - 30
"""The largest batch, and the most that waits beside the batch in hand. 500 messages of usual size need far less.

A pull request may bring half of it, and is made when the other half is free. Half of it is prime on purpose: if
messages of equal size used a request up exactly, the server would not report it. We would notice only after 8 s of
silence.
"""

_HEARTBEAT = "100"
_RAN_OUT = frozenset({"404", "408"})  # the request's time is over: ask again
_TOO_LARGE = "Message Size Exceeds MaxBytes"  # status 409: the next message is larger than what is left of its bytes
_USED_UP = frozenset({_TOO_LARGE, "Batch Completed"})  # status 409


class PullError(Exception):
    """This session is over: a reconnection, silence, a gap, or the server's own word. Start a new one."""


Weigh = Callable[[bytes], int]
"""Says what a payload counts as; its bytes or more."""


class Begun(NamedTuple):
    """How far delivery had come when a session was opened, in stream sequences.

    What had been `delivered` comes again, but for what is acknowledged; 0: all of it is. It begins behind `floor`.
    """

    delivered: int
    floor: int


UNTOUCHED = Begun(0, 0)
"""Of a consumer that was not opened before."""


class PullSession:
    """Holds the messages that are delivered and not acknowledged. Ends with PullError rather than break the order.

    A batch has at most `batch` messages, which `weigh` at most `most` together. A single message may weigh more. Beside
    the batch in hand as many messages wait at most. Their bytes are at most `most`, or they are one larger message.
    """

    def __init__(
        self, broker: Broker, spec: ConsumerSpec, batch: int, most: int = MAX_BYTES, weigh: Weigh = len
    ) -> None:
        self._broker = broker
        self._spec = spec
        self._batch = batch
        self._most = most
        self._weigh = weigh
        self._name = f"{spec.stream.value}.{spec.durable}"
        self._inbox = broker.new_inbox()
        self._buffer: deque[Delivery] = deque()
        self._buffered = 0  # their weight
        self._in_hand: dict[int, Delivery] = {}  # by stream_seq: given to the handler, not acknowledged
        self._requested = 0  # messages that the open pull request may still bring
        self._last = nothing(0, 0)
        self._arrived = asyncio.Event()
        self._pin: str | None = None  # what the server calls this session, known from the first delivery on
        self._lost: str | None = None
        self._is_cut = False  # lost because of the server or of the connection to it
        self._closed = False
        self._subscription: Subscription | None = None
        self._watch = Background(f"watch of {self._name}", self._keep_watch, died=self._lose)
        self._heard_at = 0.0
        self._delivered_at = self._asked_at = 0.0
        self._acknowledged = 0
        self._ahead: float | None = None  # seconds that our clock is ahead of the server's
        self.behind: int | None = None
        """How many messages were not acknowledged when the server was asked last; None: not asked yet."""

    async def open(self, first: int | None = None, before: Begun = UNTOUCHED) -> Begun:
        """Listen, and let the server deliver again from right after the last acknowledged message.

        `before` is what the session before has returned here. If it had got nothing yet, what it was to get again is
        what we shall: the server has forgotten that it was ever delivered.

        With `first`, delivery starts at that stream sequence if it was acknowledged already. If it was not, `first`
        is ignored: a server that has lost its stream numbers its messages anew, and a reset forward would skip some.
        """
        self._broker.on_disconnect(self._disconnected)
        self._subscription = await self._broker.subscribe(self._inbox, self._on_message)
        if self._spec.group is not None:  # first, so that nothing after the reset goes to an earlier session
            await self._broker.answered(f"CONSUMER.UNPIN.{self._name}", group=self._spec.group)
        info = await self._info_after_others()
        is_behind = first is not None and first <= info["ack_floor"]["stream_seq"]
        place = {"seq": first} if is_behind else {}
        answer = await self._broker.api(f"CONSUMER.RESET.{self._name}", **place)
        if "error" in answer:
            raise PullError(f"reset of {self._name}: {answer['error'].get('description')}")
        # Not `delivered`: a server that was just writing its state may answer with what was before the reset.
        self._last = nothing(answer["reset_seq"] - 1, 0)
        delivered, floor = info["delivered"]["stream_seq"], info["ack_floor"]["stream_seq"]
        if not is_behind and floor >= delivered:
            # A lower floor than before: the server has lost its stream, and numbers its messages anew.
            delivered = before.delivered if before.floor <= floor < before.delivered else 0
        return Begun(delivered, answer["reset_seq"] - 1)

    async def _info_after_others(self) -> dict[str, Any]:
        """Wait until no request is open, and return what the server says then.

        If somebody goes on asking, return all the same: then the pin decides, or a gap ends the session.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + 2 * (ALONE_S if self._spec.group is None else UNPINNED_S)
        while True:
            info = await self._info()
            if not info["num_waiting"] or loop.time() > until:
                return info
            await asyncio.sleep(0.05)

    async def begin(self) -> None:
        """Ask for the first messages."""
        self._heard_at = self._delivered_at = asyncio.get_running_loop().time()
        await self._pull()
        self._watch.start()

    async def take(self) -> list[Delivery]:
        """Wait for a message and return all that have arrived, or as many as a batch may have.

        The list is empty after `close`.
        """
        while not self._buffer:
            if self._closed:
                return []
            self._check()
            self._arrived.clear()
            with waiting():
                await self._arrived.wait()
        self._check()
        if self._closed:
            return []
        taken = self._next_batch()
        self._in_hand |= {delivery.stream_seq: delivery for delivery in taken}
        await self._pull()
        return taken

    def _next_batch(self) -> list[Delivery]:
        taken: list[Delivery] = []
        weight = 0
        while self._buffer and len(taken) < self._batch:
            weight += self._buffer[0].weight
            if taken and weight > self._most:
                break
            taken.append(self._buffer.popleft())
            self._buffered -= taken[-1].weight
        return taken

    async def acknowledge(self, delivery: Delivery) -> None:
        """Tell the server that a message is done."""
        await self._tell(delivery, b"+ACK")

    async def terminate(self, delivery: Delivery) -> None:
        """Tell the server never to deliver a message again."""
        await self._tell(delivery, b"+TERM")

    def give_up(self, reason: str) -> None:
        """Make `take` and `acknowledge` raise PullError from now on."""
        self._lost = self._lost or reason
        self._arrived.set()

    def close(self) -> None:
        """Make `take` return nothing more."""
        self._closed = True
        self._arrived.set()

    async def release(self) -> None:
        """Stop listening and asking. When this returns, the server has counted our acknowledgements.

        If the session was lost, or the server does not answer within SETTLE_S, this does not wait for that.
        """
        self._broker.forget_disconnect(self._disconnected)
        # First of all: a cancellation in what follows must not leave an inbox with an open pull request behind.
        try:
            if self._subscription is not None:
                await self._broker.unsubscribe(self._subscription)
        finally:
            await self._watch.stop()
        if self._acknowledged and not self._is_cut:
            await self._settle()

    async def _settle(self) -> None:
        """Wait until the server has counted our acknowledgements. It queues them, so a reset could overtake them."""
        with contextlib.suppress(TimeoutError, BrokerUnavailable):
            async with asyncio.timeout(SETTLE_S):
                while True:
                    info = await self._info()
                    if info["ack_floor"]["stream_seq"] >= self._acknowledged:
                        return
                    await asyncio.sleep(0.005)

    async def _info(self) -> dict[str, Any]:
        """Ask about the consumer. Each answer also says what time it is at the server; note the difference."""
        asked = time.time()
        info = await self._broker.answered(f"CONSUMER.INFO.{self._name}")
        answered = time.time()
        if self._ahead is None or 0 <= answered - asked < EXACT_S:
            self._ahead = (asked + answered) / 2 - datetime.fromisoformat(info["ts"]).timestamp()
        self.behind = info["num_pending"] + info["num_ack_pending"]
        return info

    def _check(self) -> None:
        if self._lost is not None:
            raise PullError(self._lost)

    def _lose(self, reason: str) -> None:
        self._is_cut = True
        self.give_up(reason)

    def _disconnected(self) -> None:
        self._lose("the connection to NATS was lost")

    async def _tell(self, delivery: Delivery, verdict: bytes) -> None:
        self._check()
        await self._broker.send(delivery.reply, verdict)
        self._in_hand.pop(delivery.stream_seq, None)
        if next(iter(self._in_hand), delivery.stream_seq) >= delivery.stream_seq:  # the oldest of them
            self._acknowledged = delivery.stream_seq

    async def _pull(self) -> None:
        """Ask for messages, if there is room. At most one batch waits or is requested beside the one in the handler.

        One request is open at a time, because each may bring half of `most`.
        """
        wanted = self._batch - len(self._buffer)
        if wanted > 0 and not self._requested and self._buffered <= self._most // 2:
            await self._ask_for(wanted, self._most // 2)

    async def _ask_for(self, wanted: int, size: int | None) -> None:
        """Ask for `wanted` messages of `size` bytes together; None: however large they are."""
        if self._lost is not None:
            return
        self._asked_at = asyncio.get_running_loop().time()
        if self._requested == 0:
            self._heard_at = self._asked_at
        self._requested += wanted
        bound = {} if size is None else {"max_bytes": size}
        request = {"batch": wanted, **bound, **self._duration()}
        await self._broker.send(f"$JS.API.CONSUMER.MSG.NEXT.{self._name}", json.dumps(request).encode(), self._inbox)

    def _duration(self) -> dict[str, Any]:
        """Return how long a request stays open, and for whom."""
        heartbeat = {"idle_heartbeat": int(HEARTBEAT_S * NANOSECONDS)}
        if self._spec.group is None:
            return {"expires": int(ALONE_S * NANOSECONDS), **heartbeat}
        if self._pin is None:
            return {"expires": int(UNPINNED_S * NANOSECONDS), "group": self._spec.group}
        return {"expires": int(PINNED_S * NANOSECONDS), **heartbeat, "group": self._spec.group, "id": self._pin}

    async def _on_message(self, message: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        headers = message.headers or {}
        status, description = headers.get("Status"), headers.get("Description", "")
        if status is None:
            self._pin = headers.get("Nats-Pin-Id", self._pin)
            await self._on_delivery(message)
        elif status in _RAN_OUT or description in _USED_UP:
            unused = headers.get("Nats-Pending-Messages", str(self._requested))
            self._requested = max(self._requested - int(unused), 0)
            if description != _TOO_LARGE:
                await self._pull()
            elif not self._buffer:  # otherwise `take` asks when there is room
                await self._ask_for(1, None)
        elif status != _HEARTBEAT:
            self._lose(f"{self._name}: {status} {description}")

    async def _on_delivery(self, message: Msg) -> None:
        self._requested = max(self._requested - 1, 0)
        self._delivered_at = self._heard_at
        delivery = read(message, self._ahead or 0.0)
        last, self._last = self._last, delivery
        if delivery.place != last.place + 1:
            self._lose(f"{self._name}: delivery {last.place + 1} is missing")
        elif delivery.stream_seq <= last.stream_seq:
            self._last = nothing(last.stream_seq, delivery.place)
            await self._on_repeated(delivery)
        else:
            delivery.weight = self._weigh(delivery.data)
            self._buffer.append(delivery)
            self._buffered += delivery.weight
            self._arrived.set()
        if not self._requested:
            await self._pull()

    async def _on_repeated(self, delivery: Delivery) -> None:
        """Deal with a message that comes again because its ack_wait ran out.

        It came to this session before, because no delivery is missing. Acknowledge it again, unless it is still waiting
        or in the handler.
        """
        waiting = delivery.stream_seq in self._in_hand or any(d.stream_seq == delivery.stream_seq for d in self._buffer)
        if not waiting:
            await self._broker.send(delivery.reply, b"+ACK")

    async def _keep_watch(self) -> None:
        """Notice when deliveries stop, and tell the server before ack_wait ends that slow work goes on."""
        async with asyncio.TaskGroup() as group:  # if one watch fails, the others and the session end
            for watch in (self._notice_silence(), self._notice_stall(), self._keep_in_progress()):
                group.create_task(watch)

    async def _notice_silence(self) -> None:
        loop = asyncio.get_running_loop()
        silent_before = False
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            silent = self._requested > 0 and loop.time() - self._heard_at > 3 * HEARTBEAT_S
            if silent and silent_before:  # twice: the first time our own loop may have been too busy to read
                self._lose(f"{self._name}: NATS is silent")
            silent_before = silent

    async def _notice_stall(self) -> None:
        """Compare with the server's own count: a server that sends heartbeats may still have stopped delivering.

        If the handler takes long, nothing is asked for, and the server would give the pin to another client.
        """
        loop = asyncio.get_running_loop()
        suspected_at = -1
        while True:
            await asyncio.sleep(STALL_S)
            with contextlib.suppress(BrokerUnavailable):
                info = await self._info()  # also under load, because it notes the server's time
                if self._pin is not None and not self._requested and loop.time() - self._asked_at > PINNED_S:
                    await self._ask_for(1, self._most // 2)
                if self._in_hand or self._buffer or loop.time() - self._delivered_at < STALL_S:
                    continue
                delivered = info["delivered"]["stream_seq"]
                # The same count twice: the messages are not just on their way to us.
                if info["num_pending"] and delivered == suspected_at:
                    self._lose(f"{self._name}: {info['num_pending']} messages are not delivered")
                suspected_at = delivered if info["num_pending"] else -1

    async def _keep_in_progress(self) -> None:
        while True:
            await asyncio.sleep(self._spec.ack_wait.total_seconds() / 3)
            await self._tell_in_progress()

    async def _tell_in_progress(self) -> None:
        try:
            for delivery in (*self._in_hand.values(), *self._buffer):
                await self._broker.send(delivery.reply, b"+WPI")
        except BrokerUnavailable as error:
            self._lose(str(error))
