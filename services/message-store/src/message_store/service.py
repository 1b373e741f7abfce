"""The rules of the record: what becomes of each message of a batch, and what a reader of history sees."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from tlim_protocol.body import check_elements
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import AcceptedMessage, OutEvent, RejectedMessage, StoredMessage
from tlim_protocol.identity import normalize_user_id
from tlim_protocol.lenient import write_json
from tlim_protocol.registry import REGISTRY, MsgType

from message_store.errors import DirectoryUnavailable
from message_store.repository import Kept, NewMessage, Refused

DIRECT_TYPES = frozenset(kind for kind, row in REGISTRY.items() if row.is_chat and not row.is_group)
"""The types that have an effect so far: messages between two people."""


class Refusal(NamedTuple):
    """Why a message is not stored although it is well-formed: what its sender is told."""

    code: ErrorCode
    detail: str
    field: str | None = None


class Archive(Protocol):
    """Where messages are kept (repository.Archive)."""

    async def unknown_conversations(self, conversation_ids: Collection[str], /) -> set[str]:
        """Return those that hold no message yet."""

    async def record(
        self, messages: Sequence[NewMessage], *, new_conversations: Collection[str], stored_at: int, published: int
    ) -> Sequence[Kept | Refused]:
        """Store a batch in one transaction; one outcome per message, in order."""


class Directory(Protocol):
    """Who exists (directory.UserDirectory)."""

    async def known(self, *, seen: Collection[str], ask: Collection[str]) -> set[str]:
        """Return those of `ask` that exist; raises DirectoryUnavailable."""


class Counters(Protocol):
    """What is counted (metrics.StoreMetrics)."""

    def stored(self, count: int) -> None:
        """Note newly stored messages."""

    def rejected(self, code: ErrorCode) -> None:
        """Note a refused message."""


class Publication(Protocol):
    """What everybody else hears of (publication.Publication)."""

    @property
    def seq(self) -> int:
        """Up to here everything is published."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Enter alone: nobody else commits or publishes inside."""

    async def publish(self, events: Sequence[tuple[str, OutEvent]], newest: int) -> None:
        """Publish events, each with its conversation id, in order; `newest` is then the published seq."""


def flaw_of(message: AcceptedMessage) -> str | None:
    """Return why a payload cannot be what the bridge accepts, or None.

    The bridge has checked all of this; a payload that fails here came from somewhere else.
    """
    envelope = message.envelope
    if envelope.msg_from != message.sender:
        return "the envelope names another sender"
    if not _is_user_id(message.sender) or not (envelope.msg_to is None or _is_user_id(envelope.msg_to)):
        return "the sender or the receiver is no user id"
    if not envelope.body:
        return "the body is empty"
    try:
        check_elements(envelope.msg_type, envelope.body)
    except TlimError as error:
        return error.detail
    if envelope.msg_to is None and envelope.session_id is None:
        return "neither a receiver nor a session"
    return None


def _is_user_id(text: str) -> bool:
    try:
        return normalize_user_id(text) == text
    except TlimError:
        return False


def refusal_of_type(msg_type: MsgType) -> Refusal | None:
    """Return the refusal of a type that has no effect yet, None for those that are stored."""
    if msg_type in DIRECT_TYPES:
        return None
    title = REGISTRY[msg_type].title
    return Refusal(ErrorCode.UNAVAILABLE, f"this server does not handle {msg_type} ({title}) yet", "msg_type")


def refusal_of_receiver(receiver: str, known: Collection[str] | None) -> Refusal | None:
    """Return the refusal of a first message to `receiver`; `known` are those who exist, None when nobody could say."""
    if known is None:
        return Refusal(ErrorCode.UNAVAILABLE, "the users directory cannot be reached, try again", "to")
    if receiver not in known:
        return Refusal(ErrorCode.USER_UNKNOWN, f"{receiver} is not a user here", "to")
    return None


class Candidate(NamedTuple):
    """A message of the batch with what is asked of it several times."""

    message: AcceptedMessage
    envelope: Envelope  # as stored and delivered: with its msg_time
    conversation_id: str
    receiver: str


def candidate_of(message: AcceptedMessage) -> Candidate:
    """Prepare a message; a missing msg_time becomes the time at which the server received it."""
    envelope = message.envelope
    if envelope.msg_time is None:
        envelope = envelope.model_copy(update={"msg_time": str(message.received_at)})
    return Candidate(message, envelope, envelope.conversation_id, envelope.msg_to or "")


def row_of(candidate: Candidate) -> NewMessage:
    """Return a message in the words of the table."""
    envelope = candidate.envelope
    return NewMessage(
        conversation_id=candidate.conversation_id,
        sender=envelope.msg_from,
        recipient=envelope.msg_to,
        msg_id=envelope.msg_id,
        msg_type=envelope.msg_type,
        version=envelope.version,
        body=write_json(envelope.body),
        msg_time=envelope.msg_time or "",
        location=candidate.message.location,
        file_ids=envelope.file_ids,
    )


def stored_event(candidate: Candidate, kept: Kept) -> StoredMessage:
    """Return what is published of a message in the table: a delivery, or for a resend the confirmation only."""
    return StoredMessage(
        seq=kept.seq,
        stored_at=kept.stored_at,
        recipients=[candidate.receiver] if kept.is_new else [],
        envelope=candidate.envelope,
        reply_to=candidate.message.reply_to,
        stanza_id=candidate.message.stanza_id,
        received_at=candidate.message.received_at,
    )


def rejected_event(message: AcceptedMessage, refusal: Refusal, after_seq: int) -> RejectedMessage:
    """Return what is published of a message that is not stored."""
    return RejectedMessage(
        code=refusal.code,
        detail=refusal.detail,
        field=refusal.field,
        msg_id=message.envelope.msg_id,
        msg_type=message.envelope.msg_type,
        sender=message.sender,
        reply_to=message.reply_to,
        stanza_id=message.stanza_id,
        received_at=message.received_at,
        after_seq=after_seq,
    )


class Recorder:
    """Stores batches and publishes what became of them."""

    def __init__(
        self,
        archive: Archive,
        directory: Directory,
        publication: Publication,
        counters: Counters,
        now: Callable[[], int],
    ) -> None:
        self._archive = archive
        self._directory = directory
        self._publication = publication
        self._counters = counters
        self._now = now  # epoch milliseconds

    async def record(self, messages: Sequence[AcceptedMessage]) -> list[str | None]:
        """Store a batch, publish its outcome; return for each message None, or why it can never be stored.

        Afterwards each message is committed and its delivery published, or its sender is told why not. Raises
        DatabaseUnavailable or BrokerUnavailable when that could not be reached: the same batch may come again.
        """
        async with self._publication.turn():
            candidates = [candidate_of(message) for message in messages]
            refusals, newcomers = await self._judge(candidates)
            admitted = [one for one, refusal in zip(candidates, refusals, strict=True) if refusal is None]
            kept = iter(await self._store(admitted, newcomers))
            outcomes = [next(kept) if refusal is None else refusal for refusal in refusals]
            await self._publish(candidates, outcomes)
        self._count(outcomes)
        return [outcome.reason if isinstance(outcome, Refused) else None for outcome in outcomes]

    async def _judge(self, candidates: Sequence[Candidate]) -> tuple[list[Refusal | None], set[str]]:
        """Return each message's refusal, and the conversations that have to be made for those without one."""
        refusals = [refusal_of_type(one.envelope.msg_type) for one in candidates]
        allowed = [one for one, refusal in zip(candidates, refusals, strict=True) if refusal is None]
        unknown = await self._archive.unknown_conversations({one.conversation_id for one in allowed})
        if not unknown:
            return refusals, unknown
        known = await self._known_users([one for one in allowed if one.conversation_id in unknown])
        for position, one in enumerate(candidates):
            if refusals[position] is None and one.conversation_id in unknown:
                refusals[position] = refusal_of_receiver(one.receiver, known)
        return refusals, unknown

    async def _known_users(self, firsts: Sequence[Candidate]) -> set[str] | None:
        try:
            return await self._directory.known(
                seen={one.message.sender for one in firsts}, ask={one.receiver for one in firsts}
            )
        except DirectoryUnavailable:
            return None

    async def _store(self, admitted: Sequence[Candidate], newcomers: set[str]) -> Sequence[Kept | Refused]:
        if not admitted:
            return []
        return await self._archive.record(
            [row_of(one) for one in admitted],
            new_conversations=newcomers.intersection(one.conversation_id for one in admitted),
            stored_at=self._now(),
            published=self._publication.seq,
        )

    async def _publish(self, candidates: Sequence[Candidate], outcomes: Sequence[Kept | Refused | Refusal]) -> None:
        """Answer in the order of the batch; seqs rise in it, since the table gave them out in it."""
        newest = self._publication.seq
        events: list[tuple[str, OutEvent]] = []
        for one, outcome in zip(candidates, outcomes, strict=True):
            if isinstance(outcome, Kept):
                newest = max(newest, outcome.seq)
                events.append((one.conversation_id, stored_event(one, outcome)))
            elif isinstance(outcome, Refusal):
                events.append((one.conversation_id, rejected_event(one.message, outcome, newest)))
        await self._publication.publish(events, newest)

    def _count(self, outcomes: Sequence[Kept | Refused | Refusal]) -> None:
        self._counters.stored(sum(isinstance(outcome, Kept) and outcome.is_new for outcome in outcomes))
        for outcome in outcomes:
            if isinstance(outcome, Refusal):
                self._counters.rejected(outcome.code)
