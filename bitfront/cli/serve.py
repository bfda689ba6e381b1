"""bitfront serve, worker, dashboard: the parts of the service."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from bitfront.cli.installation import open_artifacts, open_store, read_settings
from bitfront.errors import InvalidArgument
from bitfront.loading import uncollected

Host = Annotated[str, typer.Option(help="Address to listen at.")]
Port = Annotated[int, typer.Option(min=0, max=65_535, help="0 for any free one.")]
ModelRoots = Annotated[
    list[Path] | None,
    typer.Option(help="Folder that models are read from; may be repeated. Default: this folder."),
]
DataRoots = Annotated[
    list[Path] | None,
    typer.Option(help="Folder that texts are read from; may be repeated. Default: this folder."),
]
N = Annotated[int, typer.Option("--n", min=1, help="How many processes.")]
QUEUES = ("cpu", "gpu")

Queue = Annotated[
    str | None, typer.Option(help="cpu or gpu. Default: both, or cpu where a broker is set.")
]


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8765,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Local workers. Default: 1, or 0 where a broker is set."),
    ] = None,
    model_root: ModelRoots = None,
    data_root: DataRoots = None,
    dashboard: Annotated[
        bool, typer.Option("--dashboard/--no-dashboard", help="Whether Optuna's dashboard runs.")
    ] = True,
    dashboard_port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="Default: BITFRONT_DASHBOARD_PORT, or 8766."),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Prometheus metrics. Default: none.")
    ] = None,
) -> None:
    """Serve the API and its pages, and work on what is submitted; Ctrl-C stops it."""
    settings = read_settings()
    with uncollected():
        from bitfront.cli.serving import Plan, listening
        from bitfront.cli.serving import serve as serve_until_stopped
        from bitfront.logs import set_up_logs
        from bitfront.traces import set_up_traces

    settings = settings.model_copy(
        update={
            "model_roots": _roots(model_root, settings.model_roots),
            "data_roots": _roots(data_root, settings.data_roots),
        }
    )
    n_workers = workers if workers is not None else int(not settings.broker_url)
    dashboard_host = settings.dashboard_host
    if dashboard_port is None:
        dashboard_port = settings.dashboard_port
    if not dashboard_port:
        with listening(dashboard_host, 0) as free:
            dashboard_port = free.getsockname()[1]
    set_up_logs()
    set_up_traces("api")
    shown = dashboard_port if dashboard else None
    plan = Plan(host, port, n_workers, QUEUES, dashboard_host, shown, metrics_port)
    serve_until_stopped(settings, plan)


def _roots(given: list[Path] | None, known: tuple[Path, ...]) -> tuple[Path, ...]:
    roots = tuple(given or known or (Path.cwd(),))
    missing = [str(root) for root in roots if not root.is_dir()]
    if missing:
        raise InvalidArgument(f"No folder at {', '.join(missing)}: give one that is there.")
    return tuple(root.resolve() for root in roots)


def worker(
    queue: Queue = None,
    n: N = 1,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether a worker of this machine lives.")
    ] = False,
) -> None:
    """Work on studies until told to stop: by Celery where a broker is set, else on this machine.

    Each process has a GPU of its own where there are as many.
    """
    settings = read_settings()
    from bitfront.workers.beat import BEAT_SECONDS, beat, is_alive

    if check:
        lives = is_alive(settings.home)
        print("A worker lives." if lives else "No worker was heard of in the last minute.")
        raise typer.Exit(int(not lives))
    from bitfront.logs import set_up_logs, without_secrets
    from bitfront.processes import stoppable

    if queue not in (None, *QUEUES):
        raise InvalidArgument(f"Unknown queue {queue!r}: give {' or '.join(QUEUES)}.")
    set_up_logs()
    store = open_store(settings)
    store.db.check_schema()
    store.db.pool.dispose()
    open_artifacts(settings)
    from bitfront.workers.local import CeleryWorker, LocalWorkers
    from bitfront.workers.reaper import Reaper

    kept: LocalWorkers | CeleryWorker
    if settings.broker_url:
        kept = CeleryWorker(queue or QUEUES[0], n)
    else:
        kept = LocalWorkers(n, [queue] if queue else QUEUES)
    with stoppable(), kept, Reaper(store, kept):
        where = without_secrets(settings.database)
        print(f"{n} {'worker' if n == 1 else 'workers'} on {where}", flush=True)
        while True:
            # A Celery worker beats by itself: that it runs does not say that it takes messages.
            if not settings.broker_url and kept.pids:
                beat(settings.home)
            time.sleep(BEAT_SECONDS)


def dashboard(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Mirror every study anew.")] = False,
) -> None:
    """Show studies in Optuna's dashboard, read only, until told to stop."""
    read_settings()
    from bitfront.dashboard.__main__ import run
    from bitfront.logs import set_up_logs
    from bitfront.processes import end_with_parent, stoppable

    set_up_logs()
    end_with_parent()
    with stoppable():
        run(rebuild)
    # Its threads may be in the middle of a query.
    os._exit(0)
