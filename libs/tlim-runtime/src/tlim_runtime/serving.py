"""Running one service as a process: `serve("session_api")` is all that its `__main__.py` says."""

import sys
from collections.abc import Collection
from importlib import import_module
from types import ModuleType
from typing import cast

_UNUSED = frozenset({"aiohttp", "httpx", "rich"})
"""What our libraries load when it happens to be installed, and no service uses: aiohttp for NATS over WebSocket, rich
for coloured tracebacks, httpx for a second way to S3. Together they are 17 MiB of the 100 that an idle service may
take."""


def serve(package: str, *, needs: Collection[str] = ()) -> None:
    """Run a service until SIGTERM or SIGINT: settings from the environment, JSON logs, graceful shutdown.

    `package` has `settings.Settings` and `app.create_app(settings)`; `needs` names those of `_UNUSED` that it does
    use. Open requests get `shutdown_grace` to finish, then the lifespan closes the resources and the process ends with
    0. A setting that is missing or a start that fails ends it with another status and a line that says why.
    """
    for name in _UNUSED.difference(needs):
        sys.modules.setdefault(name, cast("ModuleType", None))  # makes `import name` fail, as if it were not installed
    import_module("tlim_runtime.server").run(package)  # only now: it imports what has just been kept out
