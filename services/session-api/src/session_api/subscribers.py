"""RPC doors: the other services ask whom the directory knows, who is in a session, what changed."""

from tlim_protocol.events import SessionAnswer, SessionChangesQuestion, SessionQuestion, UserMeet
from tlim_protocol.subjects import Rpc
from tlim_runtime.broker import Broker
from tlim_runtime.database import Database

from session_api.dependencies import session_service, user_service
from session_api.settings import Settings


class Subscribers:
    """Answers `tlim.rpc.user.meet`, `tlim.rpc.session.get` and `.changes`, one transaction for each request.

    A request that cannot be read, or answered now, raises: the broker tells the asker, who tries again or gives up.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    async def listen(self, broker: Broker) -> None:
        """Take requests from now on; several processes of this service share them."""
        await broker.respond(Rpc.USER_MEET, self.user_meet, queue=self._settings.service)
        await broker.respond(Rpc.SESSION_GET, self.session_get, queue=self._settings.service)
        await broker.respond(Rpc.SESSION_CHANGES, self.session_changes, queue=self._settings.service)

    async def user_meet(self, request: bytes) -> bytes:
        """Note who was seen and answer who is known: UserMeet -> UsersKnown."""
        question = UserMeet.from_bytes(request)
        async with self._database.session() as session:
            known = await user_service(session).meet(question)
        return known.to_bytes()

    async def session_get(self, request: bytes) -> bytes:
        """Answer a session as its newest event told it: SessionQuestion -> SessionAnswer."""
        question = SessionQuestion.from_bytes(request)
        async with self._database.session() as session:
            newest = await session_service(session, self._settings).newest_event(question.session_id)
        return SessionAnswer(session=newest).to_bytes()

    async def session_changes(self, request: bytes) -> bytes:
        """Answer a page of the log of changes: SessionChangesQuestion -> SessionChanges."""
        question = SessionChangesQuestion.from_bytes(request)
        async with self._database.session() as session:
            page = await session_service(session, self._settings).changes(question)
        return page.to_bytes()
