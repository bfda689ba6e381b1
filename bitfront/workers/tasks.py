"""The Celery worker: a message wakes it, the database says what to do.

python -m bitfront.workers.tasks QUEUE [N_PROCESSES]
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from celery import Celery
from celery.signals import (
    heartbeat_sent,
    setup_logging,
    worker_process_init,
    worker_ready,
    worker_shutting_down,
)

from bitfront.artifacts import Artifacts
from bitfront.broker import WORK, celery_app
from bitfront.loading import leave, uncollected
from bitfront.logs import set_up_logs
from bitfront.processes import end_when_stuck, end_with_parent
from bitfront.relay import Relay, ring_due
from bitfront.settings import Settings
from bitfront.store import Store
from bitfront.store.records import Stage
from bitfront.traces import set_up_traces
from bitfront.version import __version__
from bitfront.workers.beat import beat
from bitfront.workers.fetching import OFFLINE
from bitfront.workers.lease import STUCK_LEASES
from bitfront.workers.work import Work, work

if TYPE_CHECKING:
    from bitfront.workers.bench import Bench

logger = logging.getLogger(__name__)

settings = Settings()
app: Celery = celery_app(settings)


@cache
def bench() -> Bench:
    """Of this process: it keeps a study loaded from one message to the next."""
    with uncollected():
        from bitfront.workers.bench import Bench

    # From here on: loading a library may hold the interpreter for long.
    end_when_stuck(STUCK_LEASES * settings.lease_seconds)
    store = Store(settings.database, settings.lease_seconds)
    queues = (os.environ["BITFRONT_QUEUE"],)
    return Bench(store, Artifacts(settings.artifacts), settings, queues)


def stages() -> Mapping[Stage, Work[Bench]]:
    """What this worker can do.

    Imported by the process that works, which takes seconds: its parent measures nothing, and kills
    a child that is not there soon.
    """
    with uncollected():
        from bitfront.workers.stages import STAGES

    return STAGES


@app.task(name=WORK, max_retries=2)
def wake(task: int) -> None:
    """Do what this worker had best do now, which need not be the task that was rung for."""
    logger.debug("rung for task %d", task)
    place, known = bench(), stages()
    queues = [os.environ["BITFRONT_QUEUE"]]
    name = f"{socket.gethostname()}-{os.getppid()}-{os.getpid()}"
    place.store.queue.seen(name, queues[0], "celery", __version__)
    claim = place.store.queue.claim(name, queues, place.warm)
    if claim is not None:
        work(place, claim, known, _is_stopping)
        ring_due(place.store, app)


def _stop_file(pid: int) -> Path:
    return settings.home / f"stop-{pid}"


def _is_stopping() -> bool:
    # Celery keeps signals from its children, which would work on for hours.
    return _stop_file(os.getppid()).exists()


@setup_logging.connect
def _log(**_: object) -> None:
    # Celery's own lines would be plain text; it leaves logs alone where this is connected.
    set_up_logs()


@worker_process_init.connect
def _begin_process(**_: object) -> None:
    set_up_logs()
    set_up_traces("worker")


@worker_ready.connect
def _begin(**_: object) -> None:
    _stop_file(os.getpid()).unlink(missing_ok=True)
    store = Store(settings.database, settings.lease_seconds)
    Relay(store, app).__enter__()


@heartbeat_sent.connect
def _beat(**_: object) -> None:
    # Sent by the very loop that takes messages, and only while the broker is there.
    beat(settings.home)


@worker_shutting_down.connect
def _stop(**_: object) -> None:
    _stop_file(os.getpid()).touch()


def main(arguments: Sequence[str]) -> None:
    """Run a worker of one queue until it is told to stop."""
    set_up_logs()
    logging.captureWarnings(True)
    settings.home.mkdir(parents=True, exist_ok=True)
    end_with_parent()
    queue, n = arguments[0], arguments[1] if len(arguments) > 1 else "1"
    os.environ["BITFRONT_QUEUE"] = queue
    # For the pool's processes, which import everything anew.
    os.environ[OFFLINE] = "1"
    command = ["--quiet", "worker", "--pool", "prefork", "--concurrency", n, "--queues", queue]
    command += ["--loglevel", "INFO", "--hostname", f"{queue}-{os.getpid()}@%h"]
    command += ["--without-gossip", "--without-mingle"]
    try:
        app.worker_main(command)
    finally:
        _stop_file(os.getpid()).unlink(missing_ok=True)


if __name__ == "__main__":
    # Named by its module, not by `__main__`, for the pool's new processes.
    from bitfront.workers import tasks

    tasks.main(sys.argv[1:])
    leave(0)
