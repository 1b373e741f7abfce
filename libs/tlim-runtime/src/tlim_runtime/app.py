"""Building an HTTP application: the same doors and middleware for every service."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.middleware import Middleware

from tlim_runtime import health, metrics
from tlim_runtime.auth import TokenVerifier, warn_if_users_are_trusted
from tlim_runtime.bodies import BODIES_AT_ONCE, BODIES_WAITING
from tlim_runtime.errors import install_error_handlers
from tlim_runtime.health import Health
from tlim_runtime.logging import get_logger
from tlim_runtime.metrics import Metrics, MetricsMiddleware
from tlim_runtime.openapi import DescribedApp, operation_id
from tlim_runtime.requests import (
    REQUEST_ID,
    FailureBoundary,
    HeadMiddleware,
    ReadableRequests,
    RequestIdMiddleware,
    UnreadBodies,
)
from tlim_runtime.settings import ServiceSettings
from tlim_runtime.tracing import OFF, TRACEPARENT, Tracing
from tlim_runtime.turns import Turns

logger = get_logger(__name__)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

# The gateway has the same lists, for preflights and for its own errors: deploy/caddy/Caddyfile.
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
_READABLE_HEADERS = [
    REQUEST_ID,
    "ETag",
    "Location",
    "Content-Disposition",
    "Content-Range",
    "Accept-Ranges",
    "Retry-After",
    "WWW-Authenticate",
]
_ALLOWED_HEADERS = [
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-Unmodified-Since",
    "If-Range",
    "Range",
    TRACEPARENT,
    REQUEST_ID,
]


def build_app(
    title: str,
    version: str,
    settings: ServiceSettings,
    lifespan: Lifespan,
    routers: Sequence[APIRouter],
) -> FastAPI:
    """Return an application with error rendering, request ids, CORS, metrics, /healthz, /readyz and /metrics.

    Nothing is opened here: `lifespan` opens the resources, puts them on `app.state` and registers their pings with
    `app.state.health`. Set here: `app.state.settings`, `.health`, `.metrics`, `.tokens` (a TokenVerifier), `.turns`,
    `.bodies`.
    """
    tracing = _tracing(settings, version)
    app_metrics = Metrics(tracing)
    app_metrics.build(settings.service, version)
    app = DescribedApp(
        title=title,
        version=version,
        lifespan=_announced(settings, lifespan, tracing),
        telemetry=tracing.telemetry,
        docs_url=None,  # the gateway does not route them; openapi.json stands in the repository
        redoc_url=None,
        generate_unique_id_function=operation_id,
        redirect_slashes=False,  # a redirect would name the address of the last hop: http, and the inner host
        middleware=[
            Middleware(UnreadBodies),
            Middleware(RequestIdMiddleware),
            *tracing.middleware,
            Middleware(MetricsMiddleware, metrics=app_metrics),
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=_METHODS,
                allow_headers=_ALLOWED_HEADERS,
                expose_headers=_READABLE_HEADERS,
            ),
            Middleware(ReadableRequests),
            Middleware(FailureBoundary),
            Middleware(HeadMiddleware),
        ],
    )
    app.state.settings = settings
    app.state.health = Health()
    app.state.metrics = app_metrics
    app.state.tokens = TokenVerifier.of(settings)
    app.state.turns = Turns(settings.requests_at_once_per_user)
    app.state.bodies = Turns(BODIES_AT_ONCE, BODIES_WAITING)
    install_error_handlers(app)
    for router in (*routers, health.router, metrics.router):
        app.include_router(router)
    return app


def _tracing(settings: ServiceSettings, version: str) -> Tracing:
    if settings.traces_url is None:
        return OFF
    made: Tracing = import_module("tlim_runtime.otlp").OtlpTracing(settings, version)  # 10 MB that others do without
    return made


def _announced(settings: ServiceSettings, lifespan: Lifespan, tracing: Tracing) -> Lifespan:
    @asynccontextmanager
    async def announced(app: FastAPI) -> AsyncIterator[None]:
        warn_if_users_are_trusted(settings)
        async with tracing.sending(), lifespan(app):
            logger.info("ready", host=settings.host, port=settings.port)
            yield
            logger.info("stopping")

    return announced
