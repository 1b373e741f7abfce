"""The NATS doors: stored messages that share files, the question who may read a file, and the one we ask ourselves."""

from collections.abc import Sequence

from pydantic import ValidationError
from tlim_protocol.events import FileQuestion, FileSenders, FileVerdict, OutEvent, StoredMessage, read_out_event
from tlim_protocol.subjects import Rpc
from tlim_runtime.broker import Broker, Responder
from tlim_runtime.consumer import DONE, Handler, Incoming, Poison, Verdict

from file_api.access import Access, AskSenders
from file_api.files import Share


def grants_handler(access: Access) -> Handler:
    """Return the handler of FILE_GRANTS: whoever was sent a file may read it."""

    async def handle(batch: Sequence[Incoming]) -> Sequence[Verdict]:
        read = [_read(incoming) for incoming in batch]
        shares = [share for event in read if isinstance(event, StoredMessage) for share in _shares(event)]
        if shares:
            await access.share(shares)
        return [event if isinstance(event, Poison) else DONE for event in read]

    return handle


def check_responder(access: Access) -> Responder:
    """Return the answer to `tlim.rpc.file.check`: whether the user may read the file."""

    async def answer(data: bytes) -> bytes:
        question = FileQuestion.from_bytes(data)
        return FileVerdict(allowed=await access.may_read(question.file_id, question.user_id)).to_bytes()

    return answer


def senders_asker(broker: Broker) -> AskSenders:
    """Return how to ask message-store who sent a file to a user; raises BrokerUnavailable without an answer."""

    async def ask(file_id: str, user_id: str) -> Sequence[str]:
        question = FileQuestion(file_id=file_id, user_id=user_id)
        return FileSenders.from_bytes(await broker.request(Rpc.MESSAGE_GRANTS, question.to_bytes())).senders

    return ask


def _read(incoming: Incoming) -> OutEvent | Poison:
    try:
        return read_out_event(incoming.data)
    except ValidationError as error:
        return Poison(f"not an event of tlim.out: {error.error_count()} errors")


def _shares(event: StoredMessage) -> list[Share]:
    sender, recipients = event.envelope.msg_from, tuple(event.recipients)
    return [Share(file_id, sender, recipients) for file_id in event.envelope.file_ids]
