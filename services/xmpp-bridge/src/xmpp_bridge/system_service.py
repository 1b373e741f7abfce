"""The rules for messages of other systems: sent in the name of a system user, and stored like any other message."""

import asyncio
import time
import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple, Protocol

from tlim_protocol.envelope import Envelope, read_envelope
from tlim_protocol.errors import ErrorCode, TlimError, quoted
from tlim_protocol.events import (
    AcceptedMessage,
    AuditAction,
    AuditNote,
    RejectedMessage,
    StoredMessage,
    UserMeet,
)
from tlim_protocol.identity import normalize_user_id
from tlim_protocol.lenient import write_json
from tlim_protocol.registry import REGISTRY
from tlim_protocol.subjects import Rpc, subject_in
from tlim_runtime.broker import PubAck
from tlim_runtime.tracing import CURRENT, Headers, headers_with

from xmpp_bridge.awaited import Awaited
from xmpp_bridge.footprint import priced
from xmpp_bridge.pace import SenderPace
from xmpp_bridge.translate import read_refusal

_LOCATION = "server"


class SystemBroker(Protocol):
    """The broker: it takes accepted messages. Requests over it make users known and write the audit log."""

    async def publish(self, subject: str, payload: bytes, *, headers: Headers) -> PubAck: ...
    async def request(self, subject: str, payload: bytes) -> bytes: ...


class Draft(NamedTuple):
    """A message as another system gives it, to a user or to a session. The session's id is put into each element."""

    sender: str
    to: str | None
    session_id: str | None
    msg_type: str | None
    body: object
    msg_id: str | None


class AdminCaller(NamedTuple):
    """The administrator that sends: the subject of a token with scope admin, and the request's id as in the log."""

    user_id: str
    request_id: str


class SystemSender:
    """Sends messages in the name of system users, and waits until each is stored or refused.

    Each system user pays for the people whom its messages reach, as everybody does: others wait for large fan-outs.
    """

    def __init__(
        self,
        broker: SystemBroker,
        awaited: Awaited,
        users: Iterable[str],
        timeout: timedelta,
        *,
        pace: SenderPace,
        via: str,
    ) -> None:
        self._broker = broker
        self._pace = pace
        self._via = via
        self._awaited = awaited
        self._users = frozenset(normalize_user_id(user) for user in users)
        self._known: set[str] = set()
        self._timeout = timeout.total_seconds()

    async def send(self, admin: AdminCaller, draft: Draft) -> StoredMessage:
        """Return the message as it was stored. For a repeated msg_id, that is the message stored before.

        The audit log gets its entry before the message is published: nobody speaks for the system without a trace.

        Raises TlimError: NOT_ALLOWED when the sender is no system user, any code that a client can get, and UNAVAILABLE
        when no answer came in time. In that last case the message may have been stored. Raises TooManyRequests when the
        sender's messages reach too many people, and Unavailable when the message was not published.
        """
        sender, text = self._sender_of(draft), _envelope_text(draft)
        envelope = read_envelope(text, sender)
        _check_session(envelope, draft.session_id)
        self._pace.count_people(sender, envelope, priced(len(text), text.encode()))
        await self._make_known(sender)
        await self._note(admin, envelope)
        with self._awaited.expect() as expected:
            await self._publish(envelope, expected.reply_to)
            try:
                async with asyncio.timeout(self._timeout):
                    event = await expected.answer
            except TimeoutError:
                detail = f"no answer in time; it may have been stored: send it again with msg_id {envelope.msg_id}"
                raise TlimError(ErrorCode.UNAVAILABLE, detail, msg_id=envelope.msg_id) from None
        if isinstance(event, RejectedMessage):
            raise read_refusal(event)
        return event

    def _sender_of(self, draft: Draft) -> str:
        sender = normalize_user_id(draft.sender)
        if sender not in self._users:
            raise TlimError(ErrorCode.NOT_ALLOWED, f"{quoted(draft.sender)} is no system user", field="from")
        return sender

    async def _make_known(self, sender: str) -> None:
        if sender not in self._known:
            await self._broker.request(Rpc.USER_MEET, UserMeet(seen=[sender], ask=[]).to_bytes())
            self._known.add(sender)

    async def _note(self, admin: AdminCaller, envelope: Envelope) -> None:
        note = AuditNote(
            actor=admin.user_id,
            request_id=admin.request_id,
            action=AuditAction.MESSAGE_SEND,
            target=envelope.session_id or envelope.msg_to or "",
            detail={"from": envelope.msg_from, "msg_id": envelope.msg_id, "msg_type": envelope.msg_type.value},
        )
        await self._broker.request(Rpc.AUDIT_NOTE, note.to_bytes())

    async def _publish(self, envelope: Envelope, reply_to: str) -> None:
        message = AcceptedMessage(
            sender=envelope.msg_from,
            reply_to=reply_to,
            stanza_id="",
            location=_LOCATION,
            received_at=time.time_ns() // 1_000_000,
            envelope=envelope,
            via=self._via,
        )
        subject = subject_in(envelope.msg_type, envelope.conversation_id)
        await self._broker.publish(subject, message.to_bytes(), headers=headers_with(CURRENT.get()))


def _envelope_text(draft: Draft) -> str:
    fields = {
        "from": draft.sender,
        "to": draft.to,
        "msg_id": str(uuid.uuid4()) if draft.msg_id is None else draft.msg_id,
        "msg_type": draft.msg_type,
        "msg_time": str(time.time_ns() // 1_000_000),
        "body": draft.body if draft.session_id is None else _in_session(draft.body, draft.session_id),
    }
    try:
        return write_json({name: value for name, value in fields.items() if value is not None})
    except ValueError as error:  # half a surrogate pair: Python's JSON reader accepts it, UTF-8 does not
        raise TlimError(ErrorCode.JSON_INVALID, "the message holds text that is not Unicode") from error


def _in_session(body: object, session_id: str) -> object:
    """Put the session's id into every element that names none, so that one with null names it, too."""
    if not isinstance(body, list):
        return body
    return [_named(element, session_id) if isinstance(element, dict) else element for element in body]


def _named(element: dict[str, object], session_id: str) -> dict[str, object]:
    return element if element.get("session_id") is not None else {**element, "session_id": session_id}


def _check_session(envelope: Envelope, session_id: str | None) -> None:
    """Refuse a message that would go elsewhere than the caller says: its elements name another session, or none.

    A body that is a text with JSON in it is not filled in, so its elements have to name the session themselves.
    """
    if session_id is None or not REGISTRY[envelope.msg_type].names_session or envelope.session_id == session_id:
        return
    detail = "an element of body does not name the message's session_id"
    raise TlimError(ErrorCode.SESSION_ID_EMPTY, detail, field="session_id", msg_id=envelope.msg_id)
