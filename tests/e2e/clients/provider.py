"""An identity provider like that of a company: it signs tokens and publishes its keys over HTTP (OIDC, RFC 7517)."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

ISSUER = "https://id.example.org"
AUDIENCE = "chat"
ADMIN_SCOPE = "chat-admin"
_KEY_ID = "key-1"


@dataclass(frozen=True)
class IdentityProvider:
    """The provider: its entry in the settings of the stack, and the tokens that it signs."""

    jwks_url: str
    _key: RSAPrivateKey

    @property
    def setting(self) -> str:
        """The value of TLIM_EXTERNAL_ISSUERS; the claim `preferred_username` holds the user id, as with Keycloak."""
        trusted = {
            "issuer": ISSUER,
            "jwks_url": self.jwks_url,
            "audience": AUDIENCE,
            "user_claim": "preferred_username",
            "admin_scope": ADMIN_SCOPE,
        }
        return json.dumps([trusted])

    def token(self, user_id: str, **changes: Any) -> str:
        """Return a token for a user, valid for five minutes; `changes` are put over its claims."""
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "4711", "preferred_username": user_id, "scope": "openid"}
        times = {"iat": now, "exp": now + 300}
        return jwt.encode(claims | times | changes, self._key, algorithm="RS256", headers={"kid": _KEY_ID})


@contextmanager
def running_provider() -> Iterator[IdentityProvider]:
    """Serve the keys of a new provider on a free port of loopback."""
    key = generate_private_key(public_exponent=65_537, key_size=2048)
    document = json.dumps({"keys": [{**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": _KEY_ID}]}).encode()

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_: object) -> None:
            """Log nothing, to keep the output of the tests readable."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Keys) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield IdentityProvider(f"http://127.0.0.1:{server.server_port}/jwks", key)
        finally:
            server.shutdown()
            thread.join()
