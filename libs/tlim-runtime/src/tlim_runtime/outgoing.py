"""HTTP requests from a service to another server: with urllib, in a thread.

An asynchronous HTTP client would cost every service 5 MiB of memory for this alone.
"""

from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, build_opener


class _NoRedirects(HTTPRedirectHandler):
    """Treats a redirect as an error.

    A redirect could lead from https to http and to any host. The Authorization header would go there as well.
    """

    def redirect_request(self, *_: object) -> None:
        """Return None: there is no next request."""


def opener(*, outside: bool = False) -> OpenerDirector:
    """Return a urllib opener that follows no redirect. With `outside` it uses the proxy that the environment names.

    Servers of our own network are asked directly: a proxy for the way out would not find them.
    """
    return build_opener(_NoRedirects) if outside else build_opener(ProxyHandler({}), _NoRedirects)
