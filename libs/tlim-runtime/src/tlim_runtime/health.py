"""Liveness and readiness.

A process is alive while its event loop and its background work get on. It is ready while all that it needs answers.
"""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from tlim_runtime.background import stuck
from tlim_runtime.logging import get_logger

logger = get_logger(__name__)

Ping = Callable[[], Awaitable[None]]
"""Returns when the resource answers, raises with a reason when it does not."""

Warn = Callable[[], str | None]
"""Returns a sentence while something is wrong, although this process can still work; None otherwise."""

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""The addresses that machines ask every few seconds. The gateway does not route them."""

PING_TIMEOUT_S = 2.0
"""How long one ping may take. Probes wait 3 s or more, so our answer arrives in time and names what is slow."""


class Health:
    """The pings of the resources that are open; `app.state.health`."""

    def __init__(self) -> None:
        self._pings: dict[str, Ping] = {}
        self._warnings: dict[str, Warn] = {}

    def add(self, name: str, ping: Ping) -> None:
        """Register a resource under the name that /readyz shows."""
        self._pings[name] = ping

    def warn(self, name: str, warn: Warn) -> None:
        """Register a warning for /readyz. Somebody has to look after it, but the process stays ready."""
        self._warnings[name] = warn

    @property
    def warnings(self) -> dict[str, str]:
        """The warnings of this moment, by name."""
        found = {name: warn() for name, warn in self._warnings.items()}
        return {name: sentence for name, sentence in found.items() if sentence is not None}

    async def check(self) -> dict[str, str]:
        """Ping all resources at once. Return 'ok' or the reason for each, by name."""
        pings = [asyncio.wait_for(ping(), PING_TIMEOUT_S) for ping in self._pings.values()]
        results = await asyncio.gather(*pings, return_exceptions=True)
        return {name: _outcome(result) for name, result in zip(self._pings, results, strict=True)}


def _outcome(result: BaseException | None) -> str:
    if result is None:
        return "ok"
    if isinstance(result, TimeoutError):
        return f"no answer within {PING_TIMEOUT_S:g} s"
    return str(result) or type(result).__name__


router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def healthz() -> JSONResponse:
    """Answer 200 while background work gets on, else 503 with what does not: only a new process helps.

    No server is asked, so that an outage restarts no process.
    """
    work = stuck()
    if not work:
        return JSONResponse({"status": "ok"})
    logger.error("background work is stuck", work=work)
    return JSONResponse({"status": "stuck", "work": work}, status_code=HTTPStatus.SERVICE_UNAVAILABLE)


@router.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    """Answer 200 when every resource answers, else 503. The body has a line for each resource, and the warnings."""
    health: Health = request.app.state.health
    checks = await health.check()
    ready = all(outcome == "ok" for outcome in checks.values())
    warnings = {"warnings": health.warnings} if health.warnings else {}
    return JSONResponse({"ready": ready, "checks": checks, **warnings}, status_code=200 if ready else 503)
