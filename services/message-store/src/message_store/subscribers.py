"""The NATS doors: batches of accepted messages, and the two questions who may read a file and what is recalled."""

from collections.abc import Sequence

from pydantic import ValidationError
from tlim_protocol.dead_letters import DeadCause
from tlim_protocol.events import AcceptedMessage, FileQuestion, SeqsAnswer, SeqsQuestion, SessionEvent
from tlim_protocol.registry import SESSION_TYPES
from tlim_protocol.subjects import type_in
from tlim_runtime.broker import Responder
from tlim_runtime.consumer import DONE, Incoming, Poison, Verdict
from tlim_runtime.database import Database

from message_store.flaws import flaw_of
from message_store.metrics import StoreMetrics
from message_store.patience import PatientTurns
from message_store.reading.file_access_repository import FileAccess
from message_store.reading.recall_repository import Recalls
from message_store.service import Recorder
from message_store.values import ArrivedMessage, Item

MAX_PAYLOAD = 7 * 1024 * 1024
"""The largest payload that is stored. It has to be published again, a little larger, and NATS takes 8 MB. A body of
1 MiB, unpacked, has at most 6 MiB as JSON."""

ASKER_WAITS_S = 2.0
"""So long a service waits for the answer to a question that takes milliseconds (tlim_runtime.broker.Broker.request)."""

GRANTS_AT_ONCE = 2
"""Questions about files that are answered at a time; each takes milliseconds. They come from people's requests, so they
may be many. The other questions need a connection, too, and messages wait for their answers."""


class StoreInbox:
    """Hands each batch of TLIM_IN to the recorder and returns a verdict for each message."""

    def __init__(self, recorder: Recorder, metrics: StoreMetrics) -> None:
        self._recorder = recorder
        self._metrics = metrics

    async def handle(self, batch: Sequence[Incoming]) -> Sequence[Verdict]:
        """Return Done or Poison for each message; if the recorder raises, the batch comes again."""
        read = [read_item(item) for item in batch]
        items = [one for one in read if not isinstance(one, Poison)]
        with self._metrics.traces.of(batch, read):
            reasons = iter(await self._recorder.record(items))
        verdicts = [one if isinstance(one, Poison) else _verdict(next(reasons)) for one in read]
        self._metrics.batch(len(batch))
        return verdicts


def read_item(item: Incoming) -> Item | Poison:
    """Return the item in a payload of TLIM_IN, or Poison with the reason why there is none."""
    if type_in(item.subject) in SESSION_TYPES:
        return read_session_event(item.data)
    message = read_accepted(item.data)
    return message if isinstance(message, Poison) else ArrivedMessage.of(message, item.received_at, item.traceparent)


def read_session_event(data: bytes) -> SessionEvent | Poison:
    """Return the session event in a payload, or Poison with the reason why there is none."""
    try:
        event = SessionEvent.from_bytes(data)
    except ValidationError as error:
        return Poison(f"not a session event: {_first(error)}")
    return (
        event if event.msg_type in SESSION_TYPES else Poison(f"{event.msg_type} is no session event", DeadCause.INVALID)
    )


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def read_accepted(data: bytes) -> AcceptedMessage | Poison:
    """Return the message in a payload, or Poison with the reason why there is none."""
    if len(data) > MAX_PAYLOAD:
        return Poison(f"larger than {MAX_PAYLOAD} bytes", DeadCause.TOO_LARGE)
    try:
        message = AcceptedMessage.from_bytes(data)
    except ValidationError as error:
        return Poison(f"not an accepted message: {_first(error)}")
    flaw = flaw_of(message)
    return message if flaw is None else Poison(flaw, DeadCause.INVALID)


def _verdict(reason: str | None) -> Verdict:
    return DONE if reason is None else Poison(reason, DeadCause.UNSTORABLE)


def grants_responder(database: Database) -> Responder:
    """Return the responder of `tlim.rpc.message.grants`, which tells whether a user may still read a file."""
    turns = PatientTurns(GRANTS_AT_ONCE, ASKER_WAITS_S)

    async def answer(data: bytes) -> bytes:
        question = FileQuestion.from_bytes(data)
        async with turns.one(), database.session() as session:
            verdict = await FileAccess(session).verdict(question.file_id, question.user_id)
        return verdict.to_bytes()

    return answer


def recalled_responder(database: Database) -> Responder:
    """Return the responder of `tlim.rpc.message.recalled`, which tells which of some messages are recalled."""

    async def answer(data: bytes) -> bytes:
        question = SeqsQuestion.from_bytes(data)
        async with database.session() as session:
            recalled = await Recalls(session).among(question.seqs)
        return SeqsAnswer(seqs=list(recalled)).to_bytes()

    return answer
