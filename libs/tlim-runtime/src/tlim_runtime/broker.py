"""NATS: one connection per process that never gives up, ordered publishing to JetStream, request and reply."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import PubAck
from tlim_protocol.streams import inbox_prefix

from tlim_runtime.background import Tasks, cancellable
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import BrokerUnavailable
from tlim_runtime.publisher import MessageTooLarge, Publisher, with_id
from tlim_runtime.questions import Responder, ask, respond
from tlim_runtime.settings import ServiceSettings
from tlim_runtime.tracing import NO_HEADERS, OFF, Headers, Tracing, ended

__all__ = [
    "Asker", "Broker", "BrokerUnavailable", "MessageTooLarge", "Outgoing", "Overtaken", "PubAck", "Responder",
    "StreamState",
]  # fmt: skip

logger = get_logger(__name__)

RECONNECT_WAIT_S = 0.5
"""A restarted server is back within a second or two. Four services need no random spread; a big fleet would."""

REOPEN_WAIT_S = 1.0
"""How often we try again after NATS refused our password. The next deployment may mend it; a try costs little."""

PING_INTERVAL_S = 5
"""Two missed pongs end the connection. So we notice after 10 to 15 s that the other side is gone without a word;
with nats-py's default it takes 6 min."""

ACK_TIMEOUT_S = 5.0
"""JetStream acknowledges within milliseconds. After this time the caller hears 'not stored, try again'."""

Callback = Callable[[], Awaitable[None]]


class Outgoing(NamedTuple):
    """A message to publish; the same `message_id` within the stream's duplicate window is stored once.

    Without a `message_id` it is stored each time.
    """

    subject: str
    payload: bytes
    message_id: str = ""
    headers: Headers = NO_HEADERS


@dataclass(frozen=True, slots=True)
class StreamState:
    """How far a stream is: `last_seq` 0 means nothing was ever stored in it."""

    messages: int
    first_seq: int
    last_seq: int


class Overtaken(Exception):  # noqa: N818 - named for what it is
    """The newest message of a subject is not the expected one: somebody else has published."""


class Asker(Protocol):
    """Asks another service (Broker)."""

    async def request(self, subject: str, payload: bytes, /) -> bytes:
        """Return its answer; raises Unavailable without one."""


class Broker:
    """The connection of one process; open it with `await Broker.connect(...)`, close it with `close()`."""

    def __init__(self, url: str, user: str, password: str, name: str, *, max_pending: int, tracing: Tracing) -> None:
        self._tracing = tracing
        self._url = url
        self._user = user
        self._options: dict[str, Any] = {
            "name": name,
            "user": user,
            "password": password,
            "inbox_prefix": inbox_prefix(user),
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": RECONNECT_WAIT_S,
            "ping_interval": PING_INTERVAL_S,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnect,
            "reconnected_cb": self._on_reconnect,
            "closed_cb": self._on_closed,
        }
        self._client = Client()
        self._publisher = Publisher(max_pending, ACK_TIMEOUT_S)
        self._responders: list[tuple[str, str, Callable[[Msg], Awaitable[None]]]] = []
        self._listeners: list[tuple[str, Callable[[Msg], Awaitable[None]]]] = []
        self._reconnected: list[Callback] = []
        self._disconnected: list[Callable[[], None]] = []
        self._tasks = Tasks()
        self._closing = False
        self._reason = "not connected to NATS"

    @classmethod
    async def connect(
        cls, url: str, user: str, password: str, name: str, *, max_pending: int = 2_000, tracing: Tracing = OFF
    ) -> Self:
        """Connect, trying until the server is there; afterwards reconnect by itself for ever.

        `max_pending`: publishes without acknowledgement at a time, below JetStream's own bound of 10,000 per stream.
        `tracing` has the spans of questions. Raises BrokerUnavailable only when the server refuses the password.
        """
        broker = cls(url, user, password, name, max_pending=max_pending, tracing=tracing)
        await broker._open()
        return broker

    @classmethod
    async def of_service(cls, settings: ServiceSettings, tracing: Tracing, *, max_pending: int = 2_000) -> Self:
        """Connect as the service whose settings these are; see `connect`."""
        password = settings.nats_password.get_secret_value()
        url, user, name = settings.nats_url, settings.nats_user, settings.service
        return await cls.connect(url, user, password, name, max_pending=max_pending, tracing=tracing)

    async def _open(self) -> None:
        client = Client()
        try:
            await client.connect(self._url, **self._options)
        except nats.errors.Error as error:
            raise BrokerUnavailable(f"NATS refuses {self._user}: {error or type(error).__name__}") from error
        self._client = client
        self._reason = "not connected to NATS"
        await self._publisher.start(client)
        for subject, queue, answer in self._responders:
            await client.subscribe(subject, queue=queue, cb=answer)
        for subject, received in self._listeners:
            await client.subscribe(subject, cb=received)
        await self._settled()

    @property
    def is_connected(self) -> bool:
        """Whether there is a live connection at this moment."""
        return bool(self._client.is_connected)

    @property
    def pending(self) -> int:
        """Number of publishes that JetStream has not acknowledged yet."""
        return self._publisher.pending

    async def room(self) -> None:
        """Wait until fewer than `max_pending` publishes are unacknowledged. This slows a fast publisher down."""
        await self._publisher.room()

    def publish_soon(
        self, subject: str, payload: bytes, message_id: str = "", headers: Headers = NO_HEADERS
    ) -> asyncio.Future[PubAck]:
        """Queue a message for JetStream, in the order of the calls; the future is done when it is acknowledged.

        It fails with BrokerUnavailable without a connection, without an acknowledgement within 5 s, or when
        `max_pending` publishes wait already. It fails with MessageTooLarge for a size that NATS never takes.
        `PubAck.duplicate` is true when the stream already had this message id. A message without one is always stored.
        """
        return self._publisher.publish(subject, payload, message_id, headers)

    def objection(self, item: Outgoing) -> str | None:
        """Return why NATS will never take this message; None if it may take it, or if we are not connected."""
        return self._publisher.objection(item.payload, with_id(item.headers, item.message_id))

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message that the server takes, with its headers."""
        return self._client.max_payload

    async def publish(
        self, subject: str, payload: bytes, message_id: str = "", headers: Headers = NO_HEADERS
    ) -> PubAck:
        """Publish to JetStream and wait for the acknowledgement; raises BrokerUnavailable."""
        await self.room()
        return await self.publish_soon(subject, payload, message_id, headers)

    async def publish_batch(self, items: Sequence[Outgoing]) -> None:
        """Publish in order and wait until all are acknowledged.

        Raises BrokerUnavailable when one of them is not. Then repeat the whole batch: the message ids make it harmless.
        """
        waiting = []
        for item in items:
            await self.room()
            waiting.append(self.publish_soon(item.subject, item.payload, item.message_id, item.headers))
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def replace(self, subject: str, payload: bytes, newest: int, timeout_s: float = 2.0) -> int:
        """Publish to JetStream if the newest message of this very subject is `newest`; return the new one's sequence.

        `newest` is a sequence of the stream, 0 if there is no message. Raises Overtaken if it is another one. Raises
        BrokerUnavailable without an answer: then the message may have been stored.
        """
        headers = {_EXPECTED_HEADER: str(newest)}
        answer = json.loads(await self._ask(subject, payload, timeout_s, headers))
        error = answer.get("error")
        if error is None:
            return int(answer["seq"])
        if error.get("err_code") == _WRONG_LAST_SEQUENCE:
            raise Overtaken(error.get("description"))
        raise BrokerUnavailable(f"{subject}: {error.get('description')}")

    async def send(self, subject: str, payload: bytes = b"", reply: str = "") -> None:
        """Send a plain NATS message, which nobody confirms; raises BrokerUnavailable without a connection."""
        if not self.is_connected:
            raise BrokerUnavailable(self._reason)
        try:
            await self._client.publish(subject, payload, reply=reply)
        except nats.errors.Error as error:
            raise BrokerUnavailable(str(error)) from error

    async def flush(self) -> None:
        """Wait until the server has read everything sent so far; raises BrokerUnavailable."""
        try:
            await cancellable(self._client.flush(timeout=2))
        except (nats.errors.Error, OSError) as error:
            raise BrokerUnavailable(str(error) or "NATS does not answer") from error

    async def request(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
        """Ask another service and return the answer; raises BrokerUnavailable without one within `timeout_s` seconds.

        The reason is the responder's own when it answered with an error (see `respond`). The question is in the trace
        of what is in hand (tracing.py).
        """
        span = self._tracing.ask(subject)
        with ended(span):
            return await self._ask(subject, payload, timeout_s, span.headers)

    async def _ask(self, subject: str, payload: bytes, timeout_s: float, headers: Headers = NO_HEADERS) -> bytes:
        if not self.is_connected:
            raise BrokerUnavailable(self._reason)
        return await ask(self._client, subject, payload, timeout_s, headers)

    async def respond(self, subject: str, handler: Responder, queue: str) -> None:
        """Answer requests on `subject`, each in its own task; instances of one `queue` share the work.

        When this returns, the server knows the subscription: no asker is told that there is no responder. While the
        server is away, this waits for it. When `handler` raises, the error is logged, and the asker gets
        BrokerUnavailable at once instead of a time-out.
        """

        async def answer(message: Msg) -> None:
            self._tasks.start(respond(self._tracing, handler, message), f"answer on {subject}")

        self._responders.append((subject, queue, answer))
        await self._client.subscribe(subject, queue=queue, cb=answer)
        await self._settled()

    async def _settled(self) -> None:
        """Wait until the server knows all our subscriptions: nats-py sends them in the background.

        Our own messages come after them on the same connection. Only askers on other connections could be too early.
        After a reconnection nats-py sends the subscriptions first, so an answered ping shows that they are known.
        """
        while True:
            try:
                return await self.flush()
            except BrokerUnavailable as error:
                logger.warning("waiting for NATS", reason=str(error))
                await asyncio.sleep(RECONNECT_WAIT_S)

    async def listen(self, subject: str, heard: Callable[[str, bytes], None]) -> None:
        """Hear plain NATS messages until `close`, over all connections; `heard` gets the subject and data of each.

        When this returns, the server knows it. While the server is away, this waits for it.
        """

        async def received(message: Msg) -> None:
            heard(message.subject, message.data)

        self._listeners.append((subject, received))
        await self._client.subscribe(subject, cb=received)
        await self._settled()

    async def subscribe(self, subject: str, received: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Subscribe to a plain NATS subject; `received` is called for one message after the other."""
        if not self.is_connected:
            raise BrokerUnavailable(self._reason)
        try:
            return await self._client.subscribe(subject, cb=received)
        except nats.errors.Error as error:
            raise BrokerUnavailable(str(error)) from error

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Stop hearing what `subscribe` returned; does nothing on a connection that is gone."""
        try:
            await subscription.unsubscribe()
        except nats.errors.Error as error:
            logger.debug("nothing to unsubscribe", reason=str(error))

    def new_inbox(self) -> str:
        """Return a fresh subject that only this user may listen to."""
        return str(self._client.new_inbox())

    def on_reconnect(self, callback: Callback) -> None:
        """Have `callback` awaited after each reconnection (not after the first connection)."""
        self._reconnected.append(callback)

    def forget_reconnect(self, callback: Callback) -> None:
        """Undo `on_reconnect`."""
        if callback in self._reconnected:
            self._reconnected.remove(callback)

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Have `callback` called as soon as a connection is lost."""
        self._disconnected.append(callback)

    def forget_disconnect(self, callback: Callable[[], None]) -> None:
        """Undo `on_disconnect`."""
        if callback in self._disconnected:
            self._disconnected.remove(callback)

    async def ping(self) -> None:
        """Make a round trip to the server; raises BrokerUnavailable."""
        if not self.is_connected:
            raise BrokerUnavailable(self._reason)
        await self._publisher.ping()
        await self.flush()

    async def api(self, operation: str, **arguments: object) -> dict[str, Any]:
        """Call JetStream's API (`$JS.API.<operation>`) and return its answer. A refusal holds `error`."""
        answer = await self._ask(f"$JS.API.{operation}", json.dumps(arguments).encode() if arguments else b"", 5.0)
        document: dict[str, Any] = json.loads(answer)
        return document

    async def answered(self, operation: str, **arguments: object) -> dict[str, Any]:
        """Do the same as `api`, and raise BrokerUnavailable for a refusal."""
        answer = await self.api(operation, **arguments)
        if "error" in answer:
            raise BrokerUnavailable(f"{operation}: {answer['error'].get('description')}")
        return answer

    async def stream_state(self, stream: str) -> StreamState:
        """Return how far a stream is; raises BrokerUnavailable, also for a stream that does not exist yet."""
        state = (await self.answered(f"STREAM.INFO.{stream}"))["state"]
        return StreamState(state["messages"], state["first_seq"], state["last_seq"])

    async def close(self) -> None:
        """Finish the answers and publishes in flight, then disconnect."""
        self._closing = True
        await self._publisher.stop()
        await self._tasks.close(ACK_TIMEOUT_S)
        if self._client.is_connected:
            await self._client.drain()
        elif not self._client.is_closed:
            with contextlib.suppress(OSError):  # the server has just gone: there is nothing left to close
                await self._client.close()

    async def _on_error(self, error: Exception) -> None:
        reason = f"not connected to NATS: {str(error) or type(error).__name__}"
        if self.is_connected or reason != self._reason:  # an outage is logged once, not at every attempt
            logger.warning("nats", reason=str(error) or type(error).__name__)
        self._reason = reason

    async def _on_disconnect(self) -> None:
        self._publisher.connection_lost()
        for callback in tuple(self._disconnected):
            callback()
        if not self._client.is_closed:
            logger.warning("connection to NATS lost")

    async def _on_reconnect(self) -> None:
        logger.info("connected to NATS again")
        for callback in tuple(self._reconnected):
            try:
                await callback()
            except Exception:
                logger.exception("a reconnect callback failed")

    async def _on_closed(self) -> None:
        if not self._closing:
            self._tasks.start(self._reopen(), "reconnection to NATS")

    async def _reopen(self) -> None:
        """Open a new connection after nats-py has given the old one up, as it does when the password is refused."""
        while not self._closing:
            try:
                await self._open()
            except BrokerUnavailable as error:
                self._reason = str(error)
                logger.critical("NATS ended the connection", reason=str(error))
                await asyncio.sleep(REOPEN_WAIT_S)
            else:
                await self._on_reconnect()
                return


_EXPECTED_HEADER = "Nats-Expected-Last-Subject-Sequence"
_WRONG_LAST_SEQUENCE = 10071  # JetStream's err_code
