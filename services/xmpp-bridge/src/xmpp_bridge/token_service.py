"""The rules for tokens. Users that prove their identity get one. A refusal does not tell whether a user exists."""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import NamedTuple, Protocol

from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import UserMeet, UsersKnown
from tlim_protocol.identity import normalize_user_id
from tlim_protocol.subjects import Rpc
from tlim_runtime.broker import Asker
from tlim_runtime.errors import NotAuthenticated
from tlim_runtime.throttle import Throttle

from xmpp_bridge.sasl import WrongPasswordError
from xmpp_bridge.tokens import TokenIssuer


class Logins(Protocol):
    """The check of a password, done by the XMPP server (sasl.SaslLogin)."""

    async def check(self, user_id: str, password: str, begins: Callable[[], None], /) -> None: ...


class IssuedToken(NamedTuple):
    """A token and how long it is valid."""

    access_token: str
    lifetime: timedelta


def network_of(address: str) -> str:
    """Return the key under which attempts are counted: the IPv4 address, or the /64 network of an IPv6 address.

    One host commonly has a whole /64. Text that is no address is its own key.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    return str(parsed.ipv4_mapped or IPv6Network((parsed.packed[:8] + bytes(8), 64)))


class _Failure:
    """A login that counts as failed, at some throttles under some keys, from its beginning until it succeeds."""

    def __init__(self, keys: Mapping[Throttle, str]) -> None:
        self._keys = keys
        self._is_counted = False

    def check(self) -> None:
        """Raise TooManyRequests if one throttle refuses it."""
        for throttle, key in self._keys.items():
            throttle.check(key)

    def count(self) -> None:
        """Count it at all throttles, or raise TooManyRequests and count it at none."""
        self.check()
        for throttle, key in self._keys.items():
            throttle.hit(key)
        self._is_counted = True

    def take_back(self) -> None:
        """Take back what was counted."""
        if self._is_counted:
            for throttle, key in self._keys.items():
                throttle.give_back(key)


class TokenDesk:
    """Gives tokens to users with an XMPP password or a login over XMPP, and makes them known to the users directory."""

    def __init__(
        self,
        logins: Logins,
        directory: Asker,
        issuer: TokenIssuer,
        *,
        per_user: Throttle,
        failures_per_user: Throttle,
        failures_per_address: Throttle,
        per_session: Throttle,
        lifetime: timedelta,
        failure_delay: timedelta,
    ) -> None:
        self._logins = logins
        self._directory = directory
        self._issuer = issuer
        self._per_user = per_user
        self._failures_per_user = failures_per_user
        self._failures_per_address = failures_per_address
        self._per_session = per_session
        self._lifetime = lifetime
        self._failure_delay = failure_delay.total_seconds()

    async def issue(self, username: str, password: str, address: str) -> IssuedToken:
        """Return a token for the user; `address` is the client's.

        Raises NotAuthenticated for an unknown user and for a wrong password. Both look the same and take the same time.
        Raises TlimError(NOT_ALLOWED) for a deactivated user, TooManyRequests, and Unavailable when the XMPP server or
        the directory cannot be asked.

        A failure counts against the address, and against the user at that address. So guesses from other addresses do
        not lock the user out. A success counts against the user, because each login is work for the XMPP server. A
        login without a verdict counts as neither: the server is away, or the request is cancelled. Nor does an attempt
        that is refused here, or one that still waits for its turn: a whole office may share the address.
        """
        network = network_of(address)
        self._failures_per_address.check(network)
        try:
            user_id = normalize_user_id(username)
        except TlimError:
            self._failures_per_address.hit(network)
            raise NotAuthenticated("wrong user or password") from None
        self._per_user.check(user_id)
        failure = _Failure({self._failures_per_address: network, self._failures_per_user: f"{user_id} {network}"})
        failure.check()
        # The wait hides a difference: the server refuses an unknown user one round trip earlier than a wrong password.
        not_before = time.monotonic() + self._failure_delay
        is_wrong = False
        try:
            await self._logins.check(user_id, password, failure.count)
        except WrongPasswordError:
            is_wrong = True
        finally:
            if not is_wrong:
                failure.take_back()
        if is_wrong:
            await asyncio.sleep(not_before - time.monotonic())
            raise NotAuthenticated("wrong user or password")
        self._per_user.hit(user_id)
        return await self._sign_for(user_id)

    async def issue_to(self, username: str) -> IssuedToken:
        """Return a token for a user that is logged in at the XMPP server. The server vouches for them.

        Raises TlimError: FIELD_INVALID for text that cannot be a user id, NOT_ALLOWED for a deactivated user. Raises
        TooManyRequests, and Unavailable when the directory cannot be asked. These requests are counted apart from
        passwords, so somebody that guesses passwords does not lock the user out here.
        """
        user_id = normalize_user_id(username)
        self._per_session.hit(user_id)
        return await self._sign_for(user_id)

    async def _sign_for(self, user_id: str) -> IssuedToken:
        question = UserMeet(seen=[user_id], ask=[user_id]).to_bytes()
        answer = await self._directory.request(Rpc.USER_MEET, question)
        if user_id not in UsersKnown.from_bytes(answer).known:  # just seen, but not known: deactivated
            raise TlimError(ErrorCode.NOT_ALLOWED, "your account is deactivated", field="username")
        return IssuedToken(self._issuer.issue(user_id, self._lifetime), self._lifetime)
