"""The NATS doors: we answer whether files may be sent, and ask message-store before a download."""

from tlim_protocol.events import FileQuestion, FilesAnswer, FilesQuestion, FileVerdict
from tlim_protocol.subjects import Rpc
from tlim_runtime.broker import Broker, Responder

from file_api.access import Access, Verdict


def check_responder(access: Access) -> Responder:
    """Return the answer to `tlim.rpc.file.check`: which of the files exist, and which the user named with them owns."""

    async def answer(data: bytes) -> bytes:
        asks = FilesQuestion.from_bytes(data).asks
        owners = await access.owners({ask.file_id for ask in asks})
        owned = [ask for ask in asks if owners.get(ask.file_id) == ask.user_id]
        return FilesAnswer(existing=sorted(owners), owned=owned).to_bytes()

    return answer


def message_store_asker(broker: Broker) -> Verdict:
    """Return how to ask message-store whether a user may read a file because of messages.

    Raises BrokerUnavailable without an answer.
    """

    async def ask(file_id: str, user_id: str) -> FileVerdict:
        question = FileQuestion(file_id=file_id, user_id=user_id)
        return FileVerdict.from_bytes(await broker.request(Rpc.MESSAGE_GRANTS, question.to_bytes()))

    return ask
