"""The XMPP door to tokens: a logged-in user asks for one with an IQ (docs/wire-protocol.md, "Modern HTTP")."""

from typing import Protocol
from xml.etree.ElementTree import Element

from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime.background import Tasks
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable

from xmpp_bridge.iq import Refusal, is_token_request, refuse_iq, write_token
from xmpp_bridge.token_service import TokenDesk
from xmpp_bridge.translate import BridgeAddresses, read_user

logger = get_logger(__name__)


class IqAnswers(Protocol):
    """Where answers go: the component."""

    def send(self, stanzas: str) -> None: ...


class TokenRequests:
    """Answers token requests, each in a task of its own. Only users of the domain get a token."""

    def __init__(self, desk: TokenDesk, answers: IqAnswers, addresses: BridgeAddresses) -> None:
        self._desk = desk
        self._answers = answers
        self._addresses = addresses
        self._tasks = Tasks()

    def take(self, iq: Element) -> bool:
        """Begin to answer a token request; returns False for anything else."""
        if not is_token_request(iq):
            return False
        self._tasks.start(self._answer(iq), "token request")
        return True

    async def close(self) -> None:
        """Give up the requests that are not answered yet. Their clients ask again."""
        await self._tasks.close()

    async def _answer(self, iq: Element) -> None:
        answer = await self._decide(iq)
        try:
            self._answers.send(answer)
        except Unavailable:  # no connection: the client gets no answer and asks again
            logger.debug("a token request could not be answered", asker=iq.get("from"))

    async def _decide(self, iq: Element) -> str:
        user = read_user(iq.get("from", ""), self._addresses)
        if user is None:
            return refuse_iq(iq, Refusal.FORBIDDEN)
        try:
            token = await self._desk.issue_to(user)
        except TlimError as error:
            too_often = error.code is ErrorCode.TOO_MANY_REQUESTS
            return refuse_iq(iq, Refusal.TOO_OFTEN if too_often else Refusal.FORBIDDEN)
        except Unavailable as error:
            logger.warning("no token now", reason=str(error))
            return refuse_iq(iq, Refusal.NOT_NOW)
        return write_token(iq, token.access_token, token.lifetime)
