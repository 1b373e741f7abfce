"""The process around an application: settings, logs, uvicorn, signals.

serving.py imports this module late, after it has kept unused libraries out.
"""

import asyncio
import gc
import signal
from importlib import import_module
from socket import socket
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tlim_runtime.background import beside
from tlim_runtime.errors import problem
from tlim_runtime.logging import configure_logging
from tlim_runtime.settings import load_settings

_POLL_S = 0.1  # uvicorn's own beat


def run(package: str) -> None:
    """Serve `package` until it is told to stop; see serving.serve."""
    settings = load_settings(import_module(f"{package}.settings").Settings)
    configure_logging(settings.service, settings.log_level)
    application = import_module(f"{package}.app").create_app(settings)
    gc.enable()
    server = _Server(
        uvicorn.Config(
            application,
            host=settings.host,
            port=settings.port,
            http=_Protocol,
            log_config=None,  # uvicorn's loggers flow into ours
            access_log=False,  # metrics count requests; a line for each would cost more than the request
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=round(settings.shutdown_grace.total_seconds()),
        )
    )
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, _already_heard)
    server.run()


class _Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which refuses an unreadable request with a problem document."""

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not HTTP and close the connection. An unencoded address is an example."""
        answer = problem(400, msg)
        head = [b"HTTP/1.1 400 Bad Request", *(name + b": " + value for name, value in answer.raw_headers)]
        self.transport.write(b"\r\n".join([*head, b"connection: close", b"", bytes(answer.body)]))
        self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn that can also be stopped while it starts, because a start may wait for NATS without end."""

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start, unless a signal comes first. Then the event loop ends, and closes what the lifespan has opened."""
        async with beside(super().startup(sockets)) as starting:
            while not (starting.done() or self.should_exit):
                await asyncio.wait([starting], timeout=_POLL_S)
            if starting.done():
                await starting
                # All objects loaded so far stay until the end. Without the freeze, every full collection looked at
                # all of them and stopped the process for 90 ms.
                gc.collect()
                gc.freeze()


def _already_heard(_signal: int, _frame: FrameType | None) -> None:
    """Ignore the signal. uvicorn raises it once more after its shutdown, and the process would not exit with 0."""
