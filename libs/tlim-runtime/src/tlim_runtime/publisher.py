"""Publishing to JetStream with many messages in flight, in strict order, each acknowledged or failed in time."""

import asyncio
from collections import OrderedDict

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import PubAck
from tlim_protocol.dead_letters import msg_id_in

from tlim_runtime.background import Background
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import BrokerUnavailable
from tlim_runtime.pulse import beat, waiting
from tlim_runtime.tracing import TRACEPARENT, Headers, trace_of

logger = get_logger(__name__)

_HEADER_LINES = len("NATS/1.0\r\n\r\n")


class MessageTooLarge(Exception):  # noqa: N818 - named for what it is
    """NATS never takes a message of this size, so sending it again is of no use."""


def with_id(headers: Headers, message_id: str) -> Headers:
    """Return the headers with that of a message id, if there is one."""
    return {**headers, "Nats-Msg-Id": message_id} if message_id else headers


_Entry = tuple[float, asyncio.Future[PubAck]]
_Queued = tuple[str, bytes, Headers, str]  # subject, payload, headers, and the token of its acknowledgement


class Publisher:
    """The ordered way out of one connection.

    nats-py's own `publish_async` has two faults. It never gives up on an acknowledgement that was lost with a
    connection. And when a connection breaks, it sends the rest of its buffer after the reconnect. Messages before the
    rest may be lost, so their repeats would arrive out of order.
    """

    def __init__(self, max_pending: int, ack_timeout: float) -> None:
        self._client = Client()
        self._max_pending = max_pending
        self._ack_timeout = ack_timeout
        self._queue: asyncio.Queue[_Queued] = asyncio.Queue()
        self._waiting: OrderedDict[str, _Entry] = OrderedDict()  # oldest first: the first one's deadline comes first
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._inbox = ""
        self._count = 0
        self._loops = [Background("publishing", self._send_all), Background("time-outs", self._expire)]
        self._is_started = False

    @property
    def pending(self) -> int:
        """Number of messages queued or sent, and not acknowledged."""
        return len(self._waiting)

    async def room(self) -> None:
        """Wait until another message may be published."""
        while not self._has_room.is_set():  # several wake up together, and the first may take all the room
            await self._has_room.wait()

    async def start(self, client: Client) -> None:
        """Listen for acknowledgements on a fresh connection and begin sending."""
        self._client = client
        self._inbox = client.new_inbox()
        await client.subscribe(f"{self._inbox}.*", cb=self._on_ack)
        if not self._is_started:
            self._is_started = True
            for loop in self._loops:
                loop.start()

    async def stop(self) -> None:
        """Wait for the messages in flight, at most as long as an acknowledgement may take, then stop."""
        try:
            async with asyncio.timeout(self._ack_timeout):
                await self._is_idle.wait()
        except TimeoutError:
            logger.warning("stopping with unacknowledged messages", pending=self.pending)
        for loop in self._loops:
            await loop.stop()
        self._fail_all("the process is stopping")

    def objection(self, payload: bytes, headers: Headers) -> str | None:
        """Return why NATS will never take such a message, or None if it may take it. Headers count as well.

        We must not just try: the server closes the connection of a client that sends too much. Everything in flight
        on that connection is lost.
        """
        lines = sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())
        size = len(payload) + lines + _HEADER_LINES
        if not self._client.is_connected or size <= self._client.max_payload:
            return None
        return f"{size} bytes are more than NATS takes (max_payload {self._client.max_payload})"

    async def ping(self) -> None:
        """Raise Unavailable while one of our two loops is dead: messages are not sent, or never time out."""
        for loop in self._loops:
            await loop.ping()

    def publish(self, subject: str, payload: bytes, message_id: str, headers: Headers) -> asyncio.Future[PubAck]:
        """Queue one message; see Broker.publish_soon."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[PubAck] = loop.create_future()
        headers = with_id(headers, message_id)
        objection = self.objection(payload, headers)
        if objection is not None:
            future.set_exception(MessageTooLarge(objection))
        elif not self._client.is_connected:
            future.set_exception(BrokerUnavailable("not connected to NATS"))
        elif len(self._waiting) >= self._max_pending:
            future.set_exception(BrokerUnavailable("too many messages without acknowledgement"))
        else:
            self._count += 1
            token = str(self._count)
            self._waiting[token] = (loop.time() + self._ack_timeout, future)
            self._is_idle.clear()
            if len(self._waiting) >= self._max_pending:
                self._has_room.clear()
            self._queue.put_nowait((subject, payload, headers, token))
        return future

    def connection_lost(self) -> None:
        """Fail everything in flight: acknowledgements of a lost connection never come."""
        while not self._queue.empty():
            self._queue.get_nowait()
        # nats-py has no public way to empty its buffer. Lost subscriptions do no harm: it repeats them on reconnect.
        self._client._pending.clear()
        self._client._pending_data_size = 0
        self._fail_all("the connection to NATS was lost")

    async def _send_all(self) -> None:
        while True:
            subject, payload, headers, token = await self._next()
            if token not in self._waiting:  # its caller has been told that it failed, so it must not arrive
                continue
            if (
                self._waiting[token][0] <= asyncio.get_running_loop().time()
            ):  # this process hung: newer ones may be there
                self._fail(token, BrokerUnavailable("the message was not sent in time"))
                continue
            try:
                await self._client.publish(
                    subject, payload, reply=f"{self._inbox}.{token}", headers=dict(headers) or None
                )
            except (nats.errors.Error, OSError) as error:
                self._fail(token, BrokerUnavailable(str(error) or type(error).__name__))
            except Exception as error:  # a subject or id that NATS cannot carry: fail this message, serve the others
                trace = trace_of(headers.get(TRACEPARENT))
                logger.exception("a message could not be sent", subject=subject, msg_id=msg_id_in(payload), **trace)
                self._fail(token, error)

    async def _next(self) -> _Queued:
        if not self._queue.empty():  # in a burst there is nothing to wait for
            beat()
            return self._queue.get_nowait()
        with waiting():
            return await self._queue.get()

    async def _on_ack(self, message: Msg) -> None:
        token = message.subject[len(self._inbox) + 1 :]
        if (message.headers or {}).get("Status") == "503":
            self._fail(token, BrokerUnavailable("no stream takes this subject"))
            return
        answer = msgspec.json.decode(message.data)  # a third of the time of json
        if "error" in answer:
            self._fail(token, BrokerUnavailable(f"JetStream: {answer['error'].get('description')}"))
            return
        entry = self._forget(token)
        if entry is not None:
            entry.set_result(PubAck(answer["stream"], answer["seq"], duplicate=answer.get("duplicate")))

    async def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with waiting():
                await asyncio.sleep(self._ack_timeout / 10)
            while self._waiting:
                token, (deadline, _) = next(iter(self._waiting.items()))
                if deadline > loop.time():
                    break
                self._fail(token, BrokerUnavailable("JetStream did not acknowledge in time"))

    def _fail_all(self, reason: str) -> None:
        for token in list(self._waiting):
            self._fail(token, BrokerUnavailable(reason))

    def _fail(self, token: str, error: Exception) -> None:
        future = self._forget(token)
        if future is not None:
            future.set_exception(error)

    def _forget(self, token: str) -> asyncio.Future[PubAck] | None:
        entry = self._waiting.pop(token, None)
        if len(self._waiting) < self._max_pending:
            self._has_room.set()
        if not self._waiting:
            self._is_idle.set()
        return None if entry is None or entry[1].done() else entry[1]
