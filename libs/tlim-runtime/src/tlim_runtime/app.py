"""Building and running an HTTP application: the same doors, middleware and shutdown for every service."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.middleware import Middleware

from tlim_runtime import health, metrics
from tlim_runtime.auth import TokenVerifier, http_jwks, warn_if_users_are_trusted
from tlim_runtime.errors import install_error_handlers
from tlim_runtime.health import Health
from tlim_runtime.logging import configure_logging, get_logger
from tlim_runtime.metrics import Metrics, MetricsMiddleware
from tlim_runtime.openapi import describe_problems
from tlim_runtime.requests import REQUEST_ID, FailureBoundary, RequestIdMiddleware
from tlim_runtime.settings import ServiceSettings, load_settings

logger = get_logger(__name__)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
SettingsT = TypeVar("SettingsT", bound=ServiceSettings)

_READABLE_HEADERS = [REQUEST_ID, "ETag", "Content-Disposition", "Content-Range", "Accept-Ranges", "Retry-After"]
_ALLOWED_HEADERS = ["Authorization", "Content-Type", "If-Match", "If-None-Match", "If-Range", "Range", REQUEST_ID]


def build_app(
    title: str,
    version: str,
    settings: ServiceSettings,
    lifespan: Lifespan,
    routers: Sequence[APIRouter],
) -> FastAPI:
    """Return an application with error rendering, request ids, CORS, metrics, /healthz, /readyz and /metrics.

    Nothing is opened here: `lifespan` opens the resources, puts them on `app.state` and registers their pings with
    `app.state.health`. Set here: `app.state.settings`, `.health`, `.metrics`, `.tokens` (a TokenVerifier).
    """
    app_metrics = Metrics()
    app = FastAPI(
        title=title,
        version=version,
        lifespan=_announced(settings, lifespan),
        docs_url=None,  # the gateway does not route them; openapi.json stands in the repository
        redoc_url=None,
        middleware=[
            Middleware(RequestIdMiddleware),
            Middleware(MetricsMiddleware, metrics=app_metrics),
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
                allow_headers=_ALLOWED_HEADERS,
                expose_headers=_READABLE_HEADERS,
            ),
            Middleware(FailureBoundary),
        ],
    )
    app.state.settings = settings
    app.state.health = Health()
    app.state.metrics = app_metrics
    app.state.tokens = TokenVerifier(http_jwks(settings.jwks_url), settings.token_issuer, settings.token_audience)
    install_error_handlers(app)
    for router in (*routers, health.router, metrics.router):
        app.include_router(router)
    describe_problems(app)
    return app


def _announced(settings: ServiceSettings, lifespan: Lifespan) -> Lifespan:
    @asynccontextmanager
    async def announced(app: FastAPI) -> AsyncIterator[None]:
        warn_if_users_are_trusted(settings)
        async with lifespan(app):
            logger.info("ready", host=settings.host, port=settings.port)
            yield
            logger.info("stopping")

    return announced


def serve(create_app: Callable[[SettingsT], FastAPI], settings_type: type[SettingsT]) -> None:
    """Run a service until SIGTERM or SIGINT: settings from the environment, JSON logs, graceful shutdown.

    Open requests get `shutdown_grace` to finish, then `lifespan` closes the resources. Exits with 1 when a setting is
    missing or the start fails.
    """
    settings = load_settings(settings_type)
    configure_logging(settings.service, settings.log_level)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.host,
            port=settings.port,
            log_config=None,  # uvicorn's loggers flow into ours
            access_log=False,  # metrics count requests; a line for each would cost more than the request
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=round(settings.shutdown_grace.total_seconds()),
        )
    )
    server.run()
    if not server.started:
        raise SystemExit(1)
