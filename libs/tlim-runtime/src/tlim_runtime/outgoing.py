"""How a service asks another HTTP server something, a few times a day: with urllib, in a thread.

An asynchronous HTTP client would cost every service 5 MiB for this alone.
"""

from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, build_opener


class _NoRedirects(HTTPRedirectHandler):
    """Lets a redirect end as the error that it is.

    Followed, it could lead from https to http and to any host, with the Authorization header of the first request.
    """

    def redirect_request(self, *_: object) -> None:
        """Return no request to go on with."""


def opener(*, outside: bool = False) -> OpenerDirector:
    """Return what opens URLs and follows no redirect; `outside`: by way of the proxy that the environment names.

    A server inside is asked directly: a proxy for the way out would not find it.
    """
    return build_opener(_NoRedirects) if outside else build_opener(ProxyHandler({}), _NoRedirects)
