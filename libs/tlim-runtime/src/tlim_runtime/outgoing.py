"""HTTP requests from a service to another server: with urllib, in a thread.

An asynchronous HTTP client would cost every service 5 MiB of memory for this alone.
"""

import ssl
from pathlib import Path
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, ProxyHandler, build_opener


class _NoRedirects(HTTPRedirectHandler):
    """Treats a redirect as an error.

    A redirect could lead from https to http and to any host. The Authorization header would go there as well.
    """

    def redirect_request(self, *_: object) -> None:
        """Return None: there is no next request."""


def opener(*, outside: bool = False, authority: Path | None = None) -> OpenerDirector:
    """Return a urllib opener that follows no redirect. With `outside` it uses the proxy that the environment names.

    Servers of our own network are asked directly: a proxy for the way out would not find them. `authority` is trusted
    as those of the system are.
    """
    handlers = [] if outside else [ProxyHandler({})]
    https = [] if authority is None else [HTTPSHandler(context=trusting(authority))]
    return build_opener(_NoRedirects, *handlers, *https)


def trusting(authority: Path | None) -> ssl.SSLContext:
    """Return what trusts the system's authorities (SSL_CERT_FILE names others), and this one as well."""
    context = ssl.create_default_context()
    if authority is not None:
        context.load_verify_locations(authority)
    return context
