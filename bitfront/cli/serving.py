"""What `bitfront serve` is made of: addresses, signals, the API here, other parts beside it."""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from bitfront.api.app import create_app
from bitfront.api.machine import check_host
from bitfront.api.metrics import create_metrics_app
from bitfront.artifacts import Artifacts
from bitfront.cli.installation import open_artifacts, open_store
from bitfront.collection import Collector
from bitfront.errors import InvalidArgument
from bitfront.processes import Processes, stoppable
from bitfront.settings import Settings
from bitfront.store import Store

ANSWER_SECONDS = 2.5
"""Longest silence of the database: a client is told of it within 3 seconds.

A new connection has two seconds of its own, but a server that lets one in is not frozen.
"""
_GRACE_SECONDS = 2
_DASHBOARD_SECONDS = 60.0
_CONNECT_SECONDS = 0.2


@dataclass(frozen=True)
class Plan:
    """What is served.

    Args:
        host: where the API listens.
        port: of the API; 0 for any free one.
        n_workers: local workers.
        queues: what they take tasks from.
        dashboard_host: where the dashboard listens.
        dashboard_port: of the dashboard; `None` for no dashboard, 0 for any free one.
        metrics_port: of the metrics, at `host`; `None` for none.
    """

    host: str
    port: int
    n_workers: int
    queues: tuple[str, ...]
    dashboard_host: str
    dashboard_port: int | None
    metrics_port: int | None


def serve(settings: Settings, plan: Plan) -> None:
    """Serve until Ctrl-C or SIGTERM, then stop everything in order.

    Raises:
        InvalidArgument: a port that is in use, or a host that needs a key.
        StorageError: the database does not answer, or no artifacts can be kept.
        MismatchedArtifact: a newer version made the database.
    """
    with stoppable(), ExitStack() as stack:
        listener = stack.enter_context(listening(plan.host, plan.port))
        store = open_store(settings, ANSWER_SECONDS)
        store.db.upgrade()
        check_host(plan.host, store, "--host")
        if plan.dashboard_port is not None:
            check_host(plan.dashboard_host, store, "BITFRONT_DASHBOARD_HOST")
        artifacts = open_artifacts(settings)
        app = create_app(store, artifacts, settings)
        beside = _Beside(settings, plan, store, artifacts, stack)
        beside.check()

        def ready() -> None:
            beside.start()
            beside.start_metrics(app)
            _print_addresses(settings, plan, address(plan.host, listener.getsockname()[1]))

        _Server(app, ready).run(sockets=[listener])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InvalidArgument: the port is in use, or the host is none of this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = found[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(place)
            made.listen(1024)
        except OSError:
            made.close()
            raise
    except OSError as error:
        raise InvalidArgument(
            f"Cannot listen at {host}:{port} ({error.strerror}): give another port, or stop what "
            "listens there."
        ) from error
    return made


def address(host: str, port: int) -> str:
    """Where a client on this machine finds a server."""
    near = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{near}:{port}"


class _Server(uvicorn.Server):
    """A uvicorn server that says when it listens.

    Args:
        app: what it serves.
        ready: is called then.
    """

    def __init__(self, app: ASGIApp, ready: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                # Watchers of events stay connected for hours.
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if self.started:
            self._ready()


@dataclass(frozen=True)
class _Beside:
    """What runs beside the API until the stack is left."""

    settings: Settings
    plan: Plan
    store: Store
    artifacts: Artifacts
    stack: ExitStack

    def check(self) -> None:
        """Refuse ports that are in use before anything is started."""
        for host, port in (
            (self.plan.dashboard_host, self.plan.dashboard_port),
            (self.plan.host, self.plan.metrics_port),
        ):
            if port:
                listening(host, port).close()

    def start(self) -> None:
        """Start everything; nothing here waits."""
        from bitfront.workers.local import LocalWorkers
        from bitfront.workers.reaper import Reaper

        self.stack.enter_context(Collector(self.store, self.artifacts, self.settings.audit_days))
        if self.plan.dashboard_port is not None:
            port = str(self.plan.dashboard_port)
            environment = {"BITFRONT_DASHBOARD_PORT": port}
            environment["BITFRONT_DASHBOARD_HOST"] = self.plan.dashboard_host
            command = [sys.executable, "-m", "bitfront.cli", "dashboard"]
            self.stack.enter_context(Processes([command], environment))
        if self.settings.broker_url:
            from bitfront.broker import celery_app
            from bitfront.relay import Relay

            self.stack.enter_context(Relay(self.store, celery_app(self.settings)))
        if self.plan.n_workers:
            workers = LocalWorkers(self.plan.n_workers, self.plan.queues)
            self.stack.enter_context(workers)
            self.stack.enter_context(Reaper(self.store, workers))

    def start_metrics(self, app: FastAPI) -> None:
        """Serve the metrics of an application from a thread."""
        if self.plan.metrics_port is None:
            return
        listener = listening(self.plan.host, self.plan.metrics_port)
        server = _Server(create_metrics_app(app))
        thread = threading.Thread(target=server.run, args=([listener],), name="metrics")
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join()

        self.stack.callback(stop)


def _print_addresses(settings: Settings, plan: Plan, api: str) -> None:
    print(f"API        {api}\nPages      {api}/ui", flush=True)
    if plan.dashboard_port is not None:
        dashboard = address(plan.dashboard_host, plan.dashboard_port)
        threading.Thread(target=_print_once_there, args=(plan, dashboard), daemon=True).start()
    workers = f"{plan.n_workers} local" if plan.n_workers else "none here"
    print(f"Workers    {workers}\nFiles      {settings.home}", flush=True)


def _print_once_there(plan: Plan, dashboard: str) -> None:
    """The dashboard takes some seconds to start."""
    end = time.monotonic() + _DASHBOARD_SECONDS
    while time.monotonic() < end:
        with suppress(OSError):
            place = (plan.dashboard_host, plan.dashboard_port or 0)
            socket.create_connection(place, _CONNECT_SECONDS).close()
            print(f"Dashboard  {dashboard}", flush=True)
            return
        time.sleep(_CONNECT_SECONDS)
    logging.getLogger(__name__).warning("the dashboard does not answer at %s", dashboard)
