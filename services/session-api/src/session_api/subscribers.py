"""RPC doors: other services ask for known users, sessions and changes, and have admin actions noted."""

from tlim_protocol.events import AuditNote, SessionChangesQuestion, SessionsQuestion, UserMeet
from tlim_protocol.subjects import Rpc
from tlim_runtime.broker import Broker
from tlim_runtime.database import Database

from session_api.audit import Admin
from session_api.dependencies import audit_service, change_log, deactivated_users, user_service
from session_api.settings import Settings


class Subscribers:
    """Answers `tlim.rpc.user.*`, `.audit.note`, `.session.get` and `.session.changes`, one transaction for each.

    A request that cannot be read or answered now raises. Then the broker tells the asking service, which tries again
    or gives up.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def listen(self, broker: Broker) -> None:
        """Take requests from now on; several processes of this service share them."""
        await broker.respond(Rpc.USER_MEET, self.user_meet, queue=Settings.service)
        await broker.respond(Rpc.USER_DEACTIVATED, self.users_deactivated, queue=Settings.service)
        await broker.respond(Rpc.AUDIT_NOTE, self.audit_note, queue=Settings.service)
        await broker.respond(Rpc.SESSION_GET, self.session_get, queue=Settings.service)
        await broker.respond(Rpc.SESSION_CHANGES, self.session_changes, queue=Settings.service)

    async def user_meet(self, request: bytes) -> bytes:
        """Note the users that were seen, and answer which users are known: UserMeet -> UsersKnown."""
        question = UserMeet.from_bytes(request)
        async with self._database.session() as session:
            known = await user_service(session).meet(question)
        return known.to_bytes()

    async def users_deactivated(self, _: bytes) -> bytes:
        """Answer with the users whose tokens no longer count: an empty request -> UsersDeactivated."""
        return (await deactivated_users(self._database)).to_bytes()

    async def audit_note(self, request: bytes) -> bytes:
        """Write down an admin action of another service: AuditNote -> an empty answer, after the commit."""
        note = AuditNote.from_bytes(request)
        async with self._database.session() as session:
            admin = Admin(note.actor, note.request_id)
            await audit_service(session).note(admin, note.action, note.target, note.detail)
        return b""

    async def session_get(self, request: bytes) -> bytes:
        """Answer with the newest event of each session: SessionsQuestion -> SessionsAnswer."""
        question = SessionsQuestion.from_bytes(request)
        async with self._database.session() as session:
            answer = await change_log(session).newest_events(question.session_ids)
        return answer.to_bytes()

    async def session_changes(self, request: bytes) -> bytes:
        """Answer with a page of the log of changes: SessionChangesQuestion -> SessionChanges."""
        question = SessionChangesQuestion.from_bytes(request)
        async with self._database.session() as session:
            page = await change_log(session).changes(question)
        return page.to_bytes()
