"""What the doors ask for: the caller, and the rules bound to this request's one transaction."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession
from tlim_runtime.auth import CurrentUser, admin_user, current_user
from tlim_runtime.database import Database, session_dependency

from session_api.audit import Admin, AuditService
from session_api.audit_repository import AuditRepository
from session_api.changes_repository import ChangeRepository
from session_api.import_service import ImportService
from session_api.repository import SessionRepository
from session_api.service import Caller, SessionService
from session_api.settings import Settings
from session_api.users_repository import UserRepository
from session_api.users_service import UserService
from session_api.xmpp_accounts import XmppAccounts


def settings_of(request: Request) -> Settings:
    """Return this process's settings."""
    settings: Settings = request.app.state.settings
    return settings


def session_service(session: AsyncSession, settings: Settings) -> SessionService:
    """Return the rules of sessions in a transaction; also for doors that are not HTTP."""
    return SessionService(
        SessionRepository(session), ChangeRepository(session), UserRepository(session), settings.session_max_subscribers
    )


def user_service(session: AsyncSession) -> UserService:
    """Return the rules of the directory in a transaction; also for doors that are not HTTP."""
    return UserService(UserRepository(session), audit_service(session))


def audit_service(session: AsyncSession) -> AuditService:
    """Return the log of what administrators did in a transaction; also for doors that are not HTTP."""
    return AuditService(AuditRepository(session))


SettingsDep = Annotated[Settings, Depends(settings_of)]


# scope="function": the commit comes before the answer; with FastAPI's default the answer would leave first.
TransactionDep = Annotated[AsyncSession, Depends(session_dependency, scope="function")]


def _sessions(session: TransactionDep, settings: SettingsDep) -> SessionService:
    return session_service(session, settings)


def _users(session: TransactionDep) -> UserService:
    return user_service(session)


def _caller(user: Annotated[CurrentUser, Depends(current_user)]) -> Caller:
    return Caller(user.user_id)


def _audit(session: TransactionDep) -> AuditService:
    return audit_service(session)


def _imports(request: Request, session: TransactionDep) -> ImportService:
    accounts: XmppAccounts | None = request.app.state.xmpp_accounts
    return ImportService(
        UserRepository(session), audit_service(session), partial(_audit_apart, request.app.state.database), accounts
    )


@asynccontextmanager
async def _audit_apart(database: Database) -> AsyncIterator[AuditService]:
    async with database.session() as session:
        yield audit_service(session)


def _admin(request: Request, user: Annotated[CurrentUser, Depends(admin_user)]) -> Admin:
    return Admin(user.user_id, request.state.request_id)


SessionsDep = Annotated[SessionService, Depends(_sessions)]
UsersDep = Annotated[UserService, Depends(_users)]
CallerDep = Annotated[Caller, Depends(_caller)]
AuditDep = Annotated[AuditService, Depends(_audit)]
AdminDep = Annotated[Admin, Depends(_admin)]
ImportsDep = Annotated[ImportService, Depends(_imports)]
