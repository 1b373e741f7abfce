"""slixmpp's client with two safeguards: it tells the server nothing before TLS, and it accepts only a proven login."""
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False

import hashlib
import ssl
from asyncio import BaseTransport
from contextlib import suppress

from slixmpp import JID, ClientXMPP
from slixmpp.stanza import StreamFeatures
from slixmpp.util.sasl.client import SASLCancelled, sasl_mech
from slixmpp.util.sasl.mechanisms import SCRAM

MAX_LOGIN_BYTES = 64 * 1024
"""A negotiation is a few kilobytes. A server that sends more than this before the end of it is no XMPP server."""

MAX_ROUNDS = 1_000_000
"""The most rounds of SCRAM that we accept, because the server chooses their number. This many take under a second. No
real server asks for nearly as many."""


@sasl_mech(60)  # in the place of slixmpp's own
class _Scram(SCRAM):
    """SCRAM with a bound on its rounds, and the rounds in native code. slixmpp runs any number of rounds in Python."""

    def Hi(self, text: bytes, salt: bytes, iterations: int) -> bytes:  # type: ignore[override]  # noqa: N802 - slixmpp's
        if not 0 < iterations <= MAX_ROUNDS:
            raise SASLCancelled(f"{iterations} rounds")
        return hashlib.pbkdf2_hmac(self.hash_name.replace("-", "").lower(), text, salt, iterations)

    @property
    def is_proven(self) -> bool:
        """Whether the server has proved that it knows the password too (RFC 5802 section 3)."""
        return bool(self._mutual_auth)


class LoginStream(ClientXMPP):
    """Fires `no_tls` or `unproven_success` and ends the connection, in cases in which slixmpp would go on."""

    def __init__(self, jid: JID, password: str, tls: ssl.SSLContext) -> None:
        super().__init__(jid, password, ssl_context=tls)
        self.enable_direct_tls = False  # the port speaks STARTTLS: an attempt at direct TLS would be wasted
        self._bytes_before_login = 0
        self.add_event_handler("auth_success", self._check_proof)

    def connection_made(self, transport: BaseTransport, send_event: bool = True) -> None:
        self._bytes_before_login = 0
        super().connection_made(transport, send_event)

    def data_received(self, data: bytes | str) -> None:
        """Read on, but with a bound as long as the server has not let us in."""
        if not self.authenticated:
            self._bytes_before_login += len(data)
            if self._bytes_before_login > MAX_LOGIN_BYTES:
                self.disconnect_reason = "it sends too much before the login"
                self.abort()
                return
        super().data_received(data)

    def abort(self) -> None:
        """End the connection. asyncio's TLS of Python 3.11.2 fails at this if the connection was lost just before."""
        with suppress(AttributeError):
            super().abort()

    async def _handle_stream_features(self, features: StreamFeatures) -> bool | None:
        if "starttls" not in self.features and "starttls" not in features["features"]:
            self.event("no_tls")
            self.abort()
            return None
        return await super()._handle_stream_features(features)

    def _check_proof(self, _: object) -> None:
        mechanism = self.plugin["feature_mechanisms"].mech
        if isinstance(mechanism, _Scram) and not mechanism.is_proven:
            self.authenticated = False
            self.event("unproven_success")
            self.abort()
