"""The rules: what clients send is taken over or refused, and who proves who he is gets a token."""

import asyncio
import time
import uuid
from datetime import timedelta
from functools import partial
from typing import NamedTuple, Protocol
from xml.etree.ElementTree import Element

from tlim_protocol.envelope import MAX_STANZA_BYTES, read_envelope
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import AcceptedMessage, UserMeet
from tlim_protocol.identity import normalize_user_id
from tlim_protocol.subjects import Rpc, in_message_id, subject_in
from tlim_runtime.broker import PubAck
from tlim_runtime.errors import NotAuthenticated
from tlim_runtime.logging import get_logger
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import Unavailable
from tlim_runtime.throttle import Throttle

from xmpp_bridge.sasl import WrongPasswordError
from xmpp_bridge.tokens import TokenIssuer
from xmpp_bridge.translate import Addresses, Arrival, read_arrival, write_error

logger = get_logger(__name__)

RED_SECONDS = 10
"""How long a failed publish keeps readiness red when nothing was published since."""


class Publisher(Protocol):
    """Where accepted messages go: the broker."""

    def publish_soon(self, subject: str, payload: bytes, message_id: str) -> asyncio.Future[PubAck]: ...


class Door(Protocol):
    """Where messages come from and refusals go: the component."""

    def send(self, stanzas: str) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Inbox:
    """Takes over what clients send: validated, published in order, many at a time but never more than the bound.

    At the bound the door is paused, below half of it opened again; what the door had read already (one buffer) still
    comes in. Everything happens in callbacks: a task or a log line per message would cost more than the message.
    """

    def __init__(
        self, addresses: Addresses, publisher: Publisher, door: Door, metrics: Metrics, in_flight_limit: int
    ) -> None:
        self._addresses = addresses
        self._publisher = publisher
        self._door = door
        self._limit = in_flight_limit
        self._in_flight = 0
        self._is_paused = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._failed_at = float("-inf")
        outcomes = metrics.counter("tlim_bridge_inbound_total", "Messages from clients, by outcome", ("outcome",))
        self._accepted = outcomes.labels("accepted")
        self._refused = outcomes.labels("refused")
        self._ignored = outcomes.labels("ignored")
        in_flight = metrics.gauge("tlim_bridge_in_flight", "Messages that JetStream has not acknowledged")
        in_flight.set_function(lambda: self._in_flight)

    def take(self, stanza: Element) -> None:
        """Publish the tlim message in a `<message>`, or answer its sender with the code that refuses it.

        What carries none, or cannot be trusted, is ignored. Never raises: one stanza must not end the stream.
        """
        arrival = read_arrival(stanza, self._addresses)
        if arrival is None:
            self._ignored.inc()
            return
        try:
            self._publish(arrival, _accept(arrival))
        except TlimError as error:
            self._refuse(arrival, error)
        except Exception:
            logger.exception("a stanza could not be processed", sender=arrival.sender, stanza_id=arrival.stanza_id)
            self._refuse(arrival, TlimError(ErrorCode.UNAVAILABLE, "the server could not process it"))

    async def drained(self) -> None:
        """Return when JetStream has answered for everything taken over so far."""
        await self._idle.wait()

    async def ping(self) -> None:
        """Raise while publishing fails: until the next success, or for RED_SECONDS when there is no next message."""
        if time.monotonic() - self._failed_at < RED_SECONDS:
            raise Unavailable("messages could not be published")

    def _publish(self, arrival: Arrival, message: AcceptedMessage) -> None:
        message_id = in_message_id(message.sender, message.envelope.msg_id)
        future = self._send(message, message_id)
        self._in_flight += 1
        self._idle.clear()
        if self._in_flight >= self._limit:
            self._is_paused = True
            self._door.pause()  # each time: a connection made meanwhile has to be told as well
        future.add_done_callback(partial(self._on_answer, arrival, message, message_id))

    def _send(self, message: AcceptedMessage, message_id: str) -> asyncio.Future[PubAck]:
        subject = subject_in(message.envelope.msg_type, message.envelope.conversation_id)
        return self._publisher.publish_soon(subject, message.to_bytes(), message_id)

    def _on_answer(
        self, arrival: Arrival, message: AcceptedMessage, message_id: str, future: asyncio.Future[PubAck]
    ) -> None:
        failure = future.exception()
        if failure is None and future.result().duplicate:
            # A resend, which JetStream dropped, but its sender waits for an answer: the store gets it under an id of
            # its own and answers; its unique (sender, msg_id) makes that harmless.
            again = self._send(message, f"{message_id}:{uuid.uuid4().hex}")
            again.add_done_callback(partial(self._on_last_answer, arrival, message))
        else:
            self._on_last_answer(arrival, message, future)

    def _on_last_answer(self, arrival: Arrival, message: AcceptedMessage, future: asyncio.Future[PubAck]) -> None:
        failure = future.exception()
        if failure is None:
            self._accepted.inc()
            self._failed_at = float("-inf")
        else:
            if not isinstance(failure, Unavailable):
                logger.error("a message could not be published", msg_id=message.envelope.msg_id, exc_info=failure)
            self._failed_at = time.monotonic()
            detail = "the server could not process it now, send it again"
            self._refuse(arrival, TlimError(ErrorCode.UNAVAILABLE, detail, msg_id=message.envelope.msg_id))
        self._release()

    def _release(self) -> None:
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()
        if self._is_paused and self._in_flight <= self._limit // 2:
            self._is_paused = False
            self._door.resume()

    def _refuse(self, arrival: Arrival, error: TlimError) -> None:
        self._refused.inc()
        try:
            self._door.send(write_error(error, arrival.reply_to, arrival.stanza_id, self._addresses))
        except Unavailable:  # no connection: without any answer the sender's time-out makes him send again
            logger.debug("a refusal could not be sent", code=error.code)


def _accept(arrival: Arrival) -> AcceptedMessage:
    sender = normalize_user_id(arrival.sender)
    if arrival.is_oversized:
        raise TlimError(ErrorCode.FIELD_INVALID, f"the stanza is over {MAX_STANZA_BYTES} bytes", field="body")
    return AcceptedMessage(
        sender=sender,
        reply_to=arrival.reply_to,
        stanza_id=arrival.stanza_id,
        location=arrival.location,
        received_at=time.time_ns() // 1_000_000,
        envelope=read_envelope(arrival.text, sender),
    )


class Logins(Protocol):
    """Whoever can tell whether a password is right: the XMPP server (sasl.SaslLogin)."""

    async def check(self, user_id: str, password: str) -> None: ...


class Directory(Protocol):
    """How the users directory is told of somebody: the broker's request-reply."""

    async def request(self, subject: str, payload: bytes) -> bytes: ...


class IssuedToken(NamedTuple):
    """A token and how long it is valid."""

    access_token: str
    lifetime: timedelta


class TokenDesk:
    """Gives a token to whoever has the XMPP password, and makes him known to the users directory."""

    def __init__(
        self,
        logins: Logins,
        directory: Directory,
        issuer: TokenIssuer,
        *,
        per_user: Throttle,
        per_address: Throttle,
        lifetime: timedelta,
        failure_delay: timedelta,
    ) -> None:
        self._logins = logins
        self._directory = directory
        self._issuer = issuer
        self._per_user = per_user
        self._per_address = per_address
        self._lifetime = lifetime
        self._failure_delay = failure_delay.total_seconds()

    async def issue(self, username: str, password: str, address: str) -> IssuedToken:
        """Return a token for the user; `address` is the client's.

        Raises NotAuthenticated, the same and after the same time whether the user or the password is wrong,
        TooManyRequests, or Unavailable when the XMPP server or the directory cannot be asked.
        """
        self._per_address.hit(address)
        try:
            user_id = normalize_user_id(username)
        except TlimError:
            raise NotAuthenticated("wrong user or password") from None
        self._per_user.hit(user_id)
        # The server refuses an unknown user a round trip earlier than a wrong password.
        not_before = asyncio.create_task(asyncio.sleep(self._failure_delay))
        try:
            await self._logins.check(user_id, password)
        except WrongPasswordError:
            await not_before
            raise NotAuthenticated("wrong user or password") from None
        finally:
            not_before.cancel()
        await self._directory.request(Rpc.USER_MEET, UserMeet(seen=[user_id], ask=[]).to_bytes())
        return IssuedToken(self._issuer.issue(user_id, self._lifetime), self._lifetime)
