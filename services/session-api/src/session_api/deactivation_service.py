"""The rules of deactivating a user: the directory and the XMPP server both shut the user out, or neither does."""

from tlim_protocol.errors import ErrorCode, TlimError, quoted
from tlim_protocol.events import AuditAction

from session_api.audit import Admin
from session_api.clock import Clock, now_ms
from session_api.import_service import Begin
from session_api.users_service import user_id
from session_api.xmpp_accounts import XmppAccounts


class DeactivationService:
    """Deactivates users. It opens its own transactions, so that none is open while the XMPP server is asked."""

    def __init__(self, begin: Begin, accounts: XmppAccounts | None, clock: Clock = now_ms) -> None:
        self._begin = begin
        self._accounts = accounts
        self._clock = clock

    async def run(self, admin: Admin, raw_id: str) -> None:
        """Make a user unknown: nobody can add them to a session, or write to them for the first time, any more.

        If accounts are made here, the user's XMPP account is closed first. The other services refuse the user's tokens
        within seconds. Again is no error. Raises USER_UNKNOWN for a user who is not in the directory, and
        XmppUnavailable, after which nothing has changed in the directory.
        """
        checked_id = user_id(raw_id)
        async with self._begin() as directory:
            if not await directory.users.exists(checked_id):
                detail = f"user {quoted(raw_id)} is not in the directory"
                raise TlimError(ErrorCode.USER_UNKNOWN, detail, field="user_id")
            if self._accounts is not None:  # committed first: no rollback opens an account again
                await directory.audit.note(admin, AuditAction.ACCOUNT_CLOSE, checked_id)
        if self._accounts is not None:
            await self._accounts.shut_out(checked_id)
        async with self._begin() as directory:
            await directory.users.deactivate(checked_id, self._clock())
            await directory.audit.note(admin, AuditAction.USER_DEACTIVATED, checked_id)
