"""Running one service as a process: `serve("session_api")` is all that its `__main__.py` says."""

import gc
import sys
from collections.abc import Collection
from importlib import import_module
from types import ModuleType
from typing import cast

_UNUSED = frozenset({"aiodns", "aiohttp", "httpx", "pygments", "rich"})
"""Optional packages that our libraries import whenever they are installed, although no service uses them. aiodns asks
for names that the resolver of the system finds as well. aiohttp is for NATS over WebSocket, and httpx for a second way
to S3. pygments and rich are for coloured logs and tracebacks. Without them file-api takes 6 MB less, and each of the
others 13 MB."""


def serve(package: str, *, needs: Collection[str] = ()) -> None:
    """Run a service until SIGTERM or SIGINT: settings from the environment, JSON logs, graceful shutdown.

    `package` has `settings.Settings` and `app.create_app(settings)`. `needs` names the packages of `_UNUSED` that this
    service does use. At the end, open requests get `shutdown_grace` to finish. Then the lifespan closes the resources,
    and the process exits with 0. After a missing setting or a failed start it exits with another status, and a line
    says why.
    """
    gc.disable()  # until all is loaded: what is loaded stays, and looking for garbage took a tenth of the start
    for name in _UNUSED.difference(needs):
        sys.modules.setdefault(name, cast("ModuleType", None))  # makes `import name` fail, as if it were not installed
    import_module("tlim_runtime.server").run(package)  # imported only now: it would import the packages above
