"""Prometheus metrics, for a port of their own that the API's clients do not reach."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Histogram, make_asgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bitfront.errors import StorageError
from bitfront.store import Store
from bitfront.traces import span

_SEEN_SECONDS = 120
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass
class RequestCounts:
    """How many requests each route had, how they ended, and how long they took."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.answered = Counter(
            "bitfront_requests",
            "Requests by method, route and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "bitfront_request_seconds",
            "Time until an answer begins.",
            ("method", "route"),
            registry=self.registry,
            buckets=_BUCKETS,
        )


@dataclass
class Counted:
    """ASGI middleware that counts requests.

    Args:
        app: what answers.
        counts: where they are counted.
    """

    app: ASGIApp
    counts: RequestCounts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on the request and count its answer."""
        began = time.perf_counter()

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                # A path that is none would be a series of its own for each scan of a stranger.
                route, method = getattr(scope.get("route"), "path", "none"), scope["method"]
                known = method if method in {"GET", "POST", "DELETE"} else "other"
                self.counts.answered.labels(known, route, message["status"]).inc()
                self.counts.seconds.labels(known, route).observe(time.perf_counter() - began)
            await send(message)

        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with span("request", method=scope["method"], path=scope["path"]):
            await self.app(scope, receive, counting)


@dataclass(frozen=True)
class StoreCollector(Collector):
    """What the database says, asked at each scrape.

    Args:
        store: the study database.
    """

    store: Store

    def collect(self) -> Iterator[Metric]:
        """Tasks, results that came too late, workers, studies; or that the database is down."""
        is_up = GaugeMetricFamily("bitfront_database_up", "Whether the database answers.")
        try:
            yield from self._counted()
            is_up.add_metric([], 1)
        except StorageError:
            is_up.add_metric([], 0)
        yield is_up

    def _counted(self) -> list[Metric]:
        activity = self.store.activity
        tasks = GaugeMetricFamily(
            "bitfront_tasks", "Tasks there are.", labels=("queue", "stage", "state")
        )
        for key, n in sorted(activity.n_tasks().items()):
            tasks.add_metric(key, n)
        studies = GaugeMetricFamily("bitfront_studies", "Studies there are.", labels=("state",))
        for state, n in sorted(activity.n_studies().items()):
            studies.add_metric([state], n)
        workers = GaugeMetricFamily(
            "bitfront_workers", "Workers heard of lately.", labels=("queue", "transport")
        )
        seen: dict[tuple[str, str], int] = {}
        for worker in activity.workers(_SEEN_SECONDS):
            kind = (worker.queue, worker.transport)
            seen[kind] = seen.get(kind, 0) + 1
        for (queue, transport), n in sorted(seen.items()):
            workers.add_metric([queue, transport], n)
        stale = CounterMetricFamily(
            "bitfront_stale_results", "Results that came too late and were refused."
        )
        stale.add_metric([], activity.n_stale())
        return [tasks, studies, workers, stale]


def create_metrics_app(app: FastAPI) -> ASGIApp:
    """What Prometheus scrapes: the requests of an API, and its database.

    Args:
        app: made by `create_app`.
    """
    counts: RequestCounts = app.state.counts
    counts.registry.register(StoreCollector(app.state.site.store))
    made: ASGIApp = make_asgi_app(counts.registry)
    return made
