"""The rules for messages that other systems send: in the name of a system user, on the way that all messages go."""

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
from tlim_protocol.subjects import Rpc, in_message_id, subject_in
from tlim_runtime.broker import PubAck

from xmpp_bridge.awaited import Awaited
from xmpp_bridge.translate import read_refusal

_LOCATION = "server"


class SystemBroker(Protocol):
    """Where accepted messages go, and who is asked to note users and what administrators do."""

    async def publish(self, subject: str, payload: bytes, message_id: str) -> PubAck: ...
    async def request(self, subject: str, payload: bytes) -> bytes: ...


class Draft(NamedTuple):
    """A message as another system gives it: to a user, or to the session that its elements then name."""

    sender: str
    to: str | None
    session_id: str | None
    msg_type: str | None
    body: object
    msg_id: str | None


class AdminCaller(NamedTuple):
    """Who asks for it: the subject of a token with scope admin, and the request, as the log names it."""

    user_id: str
    request_id: str


class SystemSender:
    """Sends in the name of the system users, and waits until the message is stored or refused."""

    def __init__(self, broker: SystemBroker, awaited: Awaited, users: Iterable[str], timeout: timedelta) -> None:
        self._broker = broker
        self._awaited = awaited
        self._users = frozenset(normalize_user_id(user) for user in users)
        self._known: set[str] = set()
        self._timeout = timeout.total_seconds()

    async def send(self, admin: AdminCaller, draft: Draft) -> StoredMessage:
        """Return the message as it was stored, or as it had been stored when the msg_id was used before.

        It is in the audit log before it is on its way: nobody speaks for the system without a trace.

        Raises TlimError: NOT_ALLOWED for a sender who is no system user, any code that a client would hear, and
        UNAVAILABLE when no answer came in time: then it may have been stored. Raises Unavailable when it was not.
        """
        sender = self._sender_of(draft)
        envelope = read_envelope(_envelope_text(draft), sender)
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
        )
        subject = subject_in(envelope.msg_type, envelope.conversation_id)
        message_id = in_message_id(envelope.msg_from, envelope.msg_id)
        if (await self._broker.publish(subject, message.to_bytes(), message_id)).duplicate:
            # Sent before: only the store knows what became of it, so it is asked under an id of its own.
            await self._broker.publish(subject, message.to_bytes(), f"{message_id}:{uuid.uuid4().hex}")


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
    except ValueError as error:  # half a surrogate pair, which Python's JSON reader lets pass
        raise TlimError(ErrorCode.JSON_INVALID, "the message holds text that is not Unicode") from error


def _in_session(body: object, session_id: str) -> object:
    """Let every element name the session; one that names another is left as it is, and then refused."""
    if not isinstance(body, list):
        return body
    return [{"session_id": session_id, **element} if isinstance(element, dict) else element for element in body]
