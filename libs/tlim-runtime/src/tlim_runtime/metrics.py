"""Prometheus metrics: one registry per application, HTTP requests counted and timed by route template."""

import platform
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fastapi import APIRouter, Request, Response
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tlim_runtime.background import failing
from tlim_runtime.tracing import OFF, Tracing
from tlim_runtime.trail import Trail

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Described(NamedTuple):
    """What the page of all metrics (docs/metrics.md) says about one."""

    name: str
    kind: str
    documentation: str
    labels: tuple[str, ...]


FAILING = Described(
    "tlim_work_failing_seconds",
    "gauge",
    "Time from the first failure in a row of what is done again and again to the last one; 0: none, or only one",
    ("work",),
)


class _Failing(Collector):
    """Says of all that is done again and again whether it works."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(FAILING.name, FAILING.documentation, labels=FAILING.labels)
        for work, seconds in failing().items():
            family.add_metric([work], seconds)
        yield family


class Metrics:
    """The metrics of one application (`app.state.metrics`); a service registers its own through it.

    A name that is registered again is the same metric: parts that exist several times count together. No metric may
    have the way of single messages: `trail` has it, and `tracing` tells it to others.
    """

    def __init__(self, tracing: Tracing = OFF) -> None:
        self.tracing = tracing
        self.registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self.described: dict[str, Described] = {FAILING.name: FAILING}
        self.trail = Trail()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.registry.register(_Failing())
        self._requests = self.histogram(
            "tlim_http_request_duration_seconds", "HTTP requests by route", ("method", "route", "status")
        )
        self._build = self.gauge("tlim_build_info", "Always 1: what runs here", ("service", "version", "python"))

    def build(self, service: str, version: str) -> None:
        """Note which service of which version this process is."""
        self._build.labels(service, version, platform.python_version()).set(1)

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
        """Register a counter; names start with `tlim_`, end in their unit or `_total`."""
        if name not in self._counters:
            self.described[name] = Described(name, "counter", documentation, tuple(labels))
            self._counters[name] = Counter(name, documentation, labels, registry=self.registry)
        return self._counters[name]

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
        """Register a gauge; `.set_function(callable)` reads a value when scraped."""
        if name not in self._gauges:
            self.described[name] = Described(name, "gauge", documentation, tuple(labels))
            self._gauges[name] = Gauge(name, documentation, labels, registry=self.registry)
        return self._gauges[name]

    def histogram(
        self, name: str, documentation: str, labels: Sequence[str] = (), buckets: Sequence[float] = _SECONDS
    ) -> Histogram:
        """Register a histogram; the default buckets are seconds from 1 ms to 10 s."""
        if name not in self._histograms:
            self.described[name] = Described(name, "histogram", documentation, tuple(labels))
            self._histograms[name] = Histogram(name, documentation, labels, registry=self.registry, buckets=buckets)
        return self._histograms[name]

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Note one finished HTTP request."""
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.labels(method, route_template(scope), str(status)).observe(seconds)


def route_template(scope: Scope) -> str:
    """Return the template that matched (`/v1/sessions/{session_id}`). Real paths would be labels without end."""
    effective = scope.get("fastapi", {}).get("effective_route_context")
    path = getattr(effective, "path_format", None) or getattr(scope.get("route"), "path", None)
    return str(path) if path else "unmatched"


class MetricsMiddleware:
    """Counts and times every HTTP request. It is plain ASGI, so that streamed bodies pass through untouched."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            self._metrics.observe(scope, status, time.perf_counter() - started)


router = APIRouter(include_in_schema=False)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Answer in Prometheus' text format; not routed by the gateway."""
    app_metrics: Metrics = request.app.state.metrics
    return Response(generate_latest(app_metrics.registry), media_type=CONTENT_TYPE_LATEST)
