"""The dependencies of the endpoints: the caller, and the rules bound to the single transaction of a request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession
from tlim_protocol.events import UsersDeactivated
from tlim_protocol.subjects import session_event_id
from tlim_runtime.auth import CurrentUser, admin_user, current_user
from tlim_runtime.database import Database
from tlim_runtime.outages import BrokerUnavailable
from tlim_runtime.outbox import OutboxRelay
from tlim_runtime.throttle import Throttle

from session_api import users_service
from session_api.audit import Admin, AuditService
from session_api.audit_repository import AuditRepository
from session_api.changes_repository import IS_NEW, REVOKED, ChangeRepository
from session_api.changes_service import ChangeLogService
from session_api.deactivation_service import DeactivationService
from session_api.idempotency import HEADER, KEY, checked_key
from session_api.idempotency_repository import IdempotencyRepository
from session_api.import_service import DirectoryTransaction, ImportService
from session_api.models import OUTBOX
from session_api.repository import SessionRepository
from session_api.revocations import Revocations
from session_api.service import Caller, Charge, RequireBroker, SessionService
from session_api.settings import Settings
from session_api.users_repository import UserRepository
from session_api.users_service import UserService
from session_api.xmpp_accounts import XmppAccounts

_CHARGED = "charged"
"""The key in a transaction's `info` for the user that was charged, and for how many people."""


async def settings_of(request: Request) -> Settings:
    """Return this process's settings."""
    settings: Settings = request.app.state.settings
    return settings


def _free_of_charge(_user_id: str, _people: int) -> None:
    """Charge nothing: what is taken back was paid for."""


def session_service(
    session: AsyncSession, settings: Settings, require_broker: RequireBroker, charge: Charge = _free_of_charge
) -> SessionService:
    """Return the rules of sessions, bound to a transaction."""
    return SessionService(
        SessionRepository(session),
        ChangeRepository(session),
        UserRepository(session),
        IdempotencyRepository(session),
        require_broker,
        charge=charge,
        limit=settings.session_max_subscribers,
    )


def revocations_of(database: Database, relay: OutboxRelay, settings: Settings) -> Revocations:
    """Return the object that publishes removals and deletions before they are answered, or undoes them."""
    one_at_a_time = asyncio.Lock()  # they wait for the same lock in PostgreSQL, each with a connection of a small pool

    async def take_back(session_id: str, version: int) -> bool:
        async with one_at_a_time, database.session() as session:
            if not await OUTBOX.withdraw(session, session_event_id(session_id, version)):
                return False
            await session_service(session, settings, relay.require_broker).undo(session_id, version)
        return True

    return Revocations(relay, take_back)


def change_log(session: AsyncSession) -> ChangeLogService:
    """Return the log of changes, bound to a transaction; for NATS doors."""
    return ChangeLogService(ChangeRepository(session))


def user_service(session: AsyncSession) -> UserService:
    """Return the rules of the directory, bound to a transaction; also for NATS doors."""
    return UserService(UserRepository(session), audit_service(session))


async def deactivated_users(database: Database) -> UsersDeactivated:
    """Return whose tokens no longer count. This service does not ask itself over NATS.

    Then another instance that hangs could be asked. A question also ends before the pool of a slow PostgreSQL gives up,
    so the log would name NATS.
    """
    async with database.session() as session:
        return await user_service(session).deactivated()


class DeactivatedUsers:
    """What this service reads of them for itself. It also sees when there are more than the services hear of."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._are_too_many = False

    async def read(self) -> UsersDeactivated:
        """Return whose tokens no longer count; raises DatabaseUnavailable."""
        found = await deactivated_users(self._database)
        self._are_too_many = len(found.users) >= users_service.MAX_DEACTIVATED
        return found

    def warning(self) -> str | None:
        """Return a sentence while some deactivated users may be left out; None otherwise."""
        most = users_service.MAX_DEACTIVATED
        return f"{most} or more: tokens of those that were deactivated first may count" if self._are_too_many else None


def audit_service(session: AsyncSession) -> AuditService:
    """Return the audit log, bound to a transaction; also for NATS doors."""
    return AuditService(AuditRepository(session))


SettingsDep = Annotated[Settings, Depends(settings_of)]


async def _revocations(request: Request) -> Revocations:
    revocations: Revocations = request.app.state.revocations
    return revocations


RevocationsDep = Annotated[Revocations, Depends(_revocations)]


async def _transaction(request: Request, revocations: RevocationsDep) -> AsyncIterator[AsyncSession]:
    """Give a request its single transaction: it is committed, its event is published, then the request is answered.

    A new session is answered before its event is published (docs/decisions/membership.md).
    """
    async with request.app.state.database.session() as session:
        yield session
    revoked: tuple[str, int] | None = session.info.get(REVOKED)
    if revoked is not None:
        try:
            await revocations.confirm(*revoked)
        except BrokerUnavailable:
            _pace(request).give_back(*session.info[_CHARGED])  # else an outage would use up the limit
            raise
    elif IS_NEW in session.info:
        await request.app.state.outbox_relay.flush(timeout_s=0)  # wakes the relay without waiting: the row is safe
    elif session.info.get("outbox"):
        await request.app.state.outbox_relay.flush()


# scope="function": the commit comes before the answer; with FastAPI's default the answer would leave first.
TransactionDep = Annotated[AsyncSession, Depends(_transaction, scope="function")]


async def _sessions(
    request: Request,
    session: TransactionDep,
    settings: SettingsDep,
    revocations: RevocationsDep,
) -> SessionService:
    def charge(user_id: str, people: int) -> None:
        _pace(request).hit(user_id, people)
        session.info[_CHARGED] = (user_id, people)

    return session_service(session, settings, revocations.require_broker, charge)


def _pace(request: Request) -> Throttle:
    pace: Throttle = request.app.state.pace
    return pace


async def _users(session: TransactionDep) -> UserService:
    return user_service(session)


async def _caller(user: Annotated[CurrentUser, Depends(current_user)]) -> Caller:
    return Caller(user.user_id)


IDEMPOTENCY_KEY = {
    "name": HEADER,
    "in": "header",
    "description": "the same key with the same request within 24 h: the same answer, and no second session",
    "schema": {"type": "string", "pattern": KEY},
}
"""The header in OpenAPI. It is read by hand: declared as FastAPI does it, the specification's endpoints had a 422."""


async def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get(HEADER)
    return None if key is None else checked_key(key)


async def _audit(session: TransactionDep) -> AuditService:
    return audit_service(session)


async def _imports(request: Request) -> ImportService:
    accounts: XmppAccounts | None = request.app.state.xmpp_accounts
    database: Database = request.app.state.database
    own: Database = request.app.state.own_database
    return ImportService(partial(_directory, database), partial(own.alone, "accounts of imported users"), accounts)


async def _deactivation(request: Request) -> DeactivationService:
    database: Database = request.app.state.database
    return DeactivationService(partial(_directory, database), request.app.state.xmpp_accounts)


@asynccontextmanager
async def _directory(database: Database) -> AsyncIterator[DirectoryTransaction]:
    async with database.session() as session:
        yield DirectoryTransaction(UserRepository(session), audit_service(session))


async def _admin(request: Request, user: Annotated[CurrentUser, Depends(admin_user)]) -> Admin:
    return Admin(user.user_id, request.state.request_id)


SessionsDep = Annotated[SessionService, Depends(_sessions)]
UsersDep = Annotated[UserService, Depends(_users)]
IdempotencyKeyDep = Annotated[str | None, Depends(_idempotency_key)]
CallerDep = Annotated[Caller, Depends(_caller)]
AuditDep = Annotated[AuditService, Depends(_audit)]
AdminDep = Annotated[Admin, Depends(_admin)]
DeactivationDep = Annotated[DeactivationService, Depends(_deactivation)]
ImportsDep = Annotated[ImportService, Depends(_imports)]
