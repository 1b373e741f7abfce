"""XMPP accounts through ejabberd's API (mod_http_api): they are made, get new passwords, and are closed."""

import asyncio
import base64
import http.client
import json
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request

from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime.outages import Unavailable
from tlim_runtime.outgoing import opener

from session_api.settings import Settings

ALREADY_REGISTERED = 10090
"""ejabberd's code for an account that exists (ejabberd_admin.erl)."""

AT_ONCE = 8
"""Requests at a time: more would only wait at the server, whose processors are busy with hashing passwords."""

_FAILED = b"1"
"""The body, with status 200, of a command that did nothing; 0 means success."""

_NOT_DONE = {"message": "it could not be done"}
"""What stands for that body as a refusal."""

_UNACCEPTABLE = "unacceptable characters"
"""The text, with status 500, by which ejabberd says that it does not accept the password."""

_TIMEOUT_S = 10.0
_SERVER = opener()


class XmppUnavailable(Unavailable):
    """The XMPP server's API does not answer, or refuses our credentials."""


class AccountOutcome(StrEnum):
    """What was done with an account."""

    CREATED = "created"
    CHANGED = "changed"
    KEPT = "kept"


class XmppAccounts:
    """The API of one ejabberd. `url` is where mod_http_api is mounted, `authorization` the header's value, if any."""

    def __init__(self, url: str, domain: str, authorization: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._domain = domain
        # A separate pool: slow answers in the common pool would delay everything else that runs in threads.
        self._threads = ThreadPoolExecutor(AT_ONCE, "xmpp accounts")
        self._headers = {"Content-Type": "application/json"}
        if authorization is not None:
            self._headers["Authorization"] = authorization

    @classmethod
    def of(cls, settings: Settings) -> "XmppAccounts | None":
        """Return the API that the settings name; None if accounts are made elsewhere."""
        if settings.xmpp_admin_url is None:
            return None
        if settings.xmpp_admin_token is not None:
            authorization = f"Bearer {settings.xmpp_admin_token.get_secret_value()}"
        else:
            password = settings.xmpp_admin_password
            pair = f"{settings.xmpp_admin_user}:{password.get_secret_value() if password else ''}"
            authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return cls(settings.xmpp_admin_url, settings.xmpp_domain, authorization)

    def close(self) -> None:
        """End the threads without waiting for their requests."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def ensure(self, passwords: Mapping[str, str], *, reset: bool) -> dict[str, AccountOutcome | TlimError]:
        """Make sure that each of these users has an account; return the outcome, or why the server refuses it.

        An existing account keeps its password, unless `reset`. After XmppUnavailable, some accounts may be made
        already; calling again continues.
        """
        loop = asyncio.get_running_loop()
        waiting = iter(passwords.items())
        outcomes: dict[str, AccountOutcome | TlimError] = {}

        async def work() -> None:
            for user, password in waiting:  # shared: each worker takes the next one
                outcomes[user] = await loop.run_in_executor(self._threads, self._ensure, user, password, reset)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(AT_ONCE, len(passwords))):
                    group.create_task(work())
        except ExceptionGroup as failures:
            # Not `except*`: Python before 3.11.4 puts what that raises into a group again.
            unavailable, others = failures.split(Unavailable)
            if unavailable is None or others is not None:
                raise
            raise unavailable.exceptions[0] from None
        return outcomes

    async def shut_out(self, user: str) -> None:
        """Give an account a password that nobody knows, and end its sessions. Does nothing if there is no account.

        Raises XmppUnavailable. Then the account may be closed already; calling again continues. An import with
        `reset_passwords` opens the account again.
        """
        await asyncio.get_running_loop().run_in_executor(self._threads, self._shut_out, user)

    def _shut_out(self, user: str) -> None:
        absence = self._call("check_account", user=user)
        if absence == _NOT_DONE:
            return
        if absence is not None:
            raise XmppUnavailable(f"the XMPP server does not say whether there is an account: {absence.get('message')}")
        refusal = self._call("change_password", user=user, newpass=secrets.token_urlsafe(32))
        if refusal is not None:
            raise XmppUnavailable(f"the XMPP server does not close the account: {refusal.get('message')}")
        refusal = self._call("kick_user", user=user)  # it answers with the number of sessions, which may be 1
        if refusal is not None and refusal != _NOT_DONE:
            raise XmppUnavailable(f"the XMPP server does not end the sessions: {refusal.get('message')}")

    def _ensure(self, user: str, password: str, reset: bool) -> AccountOutcome | TlimError:
        refusal = self._call("register", user=user, password=password)
        if refusal is None:
            return AccountOutcome.CREATED
        if refusal.get("code") == ALREADY_REGISTERED:
            if not reset:
                return AccountOutcome.KEPT
            refusal = self._call("change_password", user=user, newpass=password)
            if refusal is None:
                return AccountOutcome.CHANGED
        detail = f"the XMPP server refuses the account: {refusal.get('message', 'it does not say why')}"
        return TlimError(ErrorCode.FIELD_INVALID, detail, field="password")

    def _call(self, command: str, **arguments: str) -> Mapping[str, Any] | None:
        """Call a command; return None for success, or the server's refusal. Raises XmppUnavailable."""
        body = json.dumps({**arguments, "host": self._domain}).encode()
        request = Request(f"{self._url}/{command}", body, self._headers, method="POST")  # noqa: S310 - set by operators
        try:
            with _SERVER.open(request, timeout=_TIMEOUT_S) as answer:
                return _NOT_DONE if answer.read().strip() == _FAILED else None
        except HTTPError as error:
            refusal = _refusal(error)
            if refusal is None:
                raise XmppUnavailable(f"the XMPP server answers {command} with {error.code}") from None
            return refusal
        except (OSError, http.client.HTTPException) as error:
            raise XmppUnavailable(f"the XMPP server's API does not answer: {error or type(error).__name__}") from None


def _refusal(error: HTTPError) -> Mapping[str, Any] | None:
    """Return the server's refusal of this account, None if the server would refuse every request."""
    with error:
        try:
            document = json.loads(error.read())
        except (ValueError, OSError):
            return None
    if not isinstance(document, dict):
        return None
    is_about_all = error.code in {401, 403, 404} or error.code >= 500
    return None if is_about_all and _UNACCEPTABLE not in str(document.get("message")) else document
