"""The process that works: claims a task, does it, claims the next. `LocalWorkers` starts it.

It stays small until there is a first task: only then is what measures models loaded.

python -m bitfront.workers.child NAME QUEUE...
"""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bitfront.artifacts import Artifacts
from bitfront.errors import BitfrontError, InvalidArgument, StorageError
from bitfront.loading import leave, uncollected
from bitfront.logs import set_up_logs
from bitfront.processes import PARENT, end_when_stuck
from bitfront.settings import Settings
from bitfront.store import Store
from bitfront.store.queue import Queue
from bitfront.store.records import Stage
from bitfront.traces import set_up_traces
from bitfront.version import __version__
from bitfront.workers.fetching import OFFLINE
from bitfront.workers.lease import STUCK_LEASES
from bitfront.workers.work import AnyPlace, Work, work

logger = logging.getLogger("bitfront.workers.child")  # here `__name__` is "__main__"

_BEGUN = time.monotonic()
_IDLE_SECONDS = 0.2
_SEEN_SECONDS = 10.0
_AWAY_SECONDS = 1.0


def main(arguments: Sequence[str]) -> int:
    """Work until told to stop, orphaned, or grown too large."""
    is_stopping, settings = told_to_stop(), Settings()
    set_up_logs()
    set_up_traces("worker")
    os.environ[OFFLINE] = "1"
    name, *queues = arguments
    store = Store(settings.database, settings.lease_seconds)
    try:
        if is_awaited(name, queues, store, is_stopping):
            _work(name, queues, store, settings, is_stopping)
    except BitfrontError as error:
        logger.error("stops: %s", error)
        return 2
    return 0


def _work(
    name: str,
    queues: Sequence[str],
    store: Store,
    settings: Settings,
    is_stopping: Callable[[], bool],
) -> None:
    try:
        # Seconds and 200 MB, which a worker with nothing to do has no use for. No task is claimed
        # yet: what fails here is none of its attempts.
        with uncollected():
            from bitfront.workers.bench import Bench
            from bitfront.workers.stages import STAGES
    except Exception as error:
        logger.exception("cannot load what it works with")
        raise InvalidArgument(f"This machine cannot work: {error}.") from error
    end_when_stuck(STUCK_LEASES * settings.lease_seconds)
    bench = Bench(store, Artifacts(settings.artifacts), settings, tuple(queues))
    try:
        loop(name, queues, bench, STAGES, is_stopping)
    finally:
        bench.close()


def told_to_stop() -> Callable[[], bool]:
    """Hears signals from now on; says whether one came, or the parent process is gone."""
    stopping = threading.Event()
    # Who started it may be gone by now.
    parent = int(os.environ.get(PARENT) or os.getppid())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    return lambda: stopping.is_set() or os.getppid() != parent


def is_awaited(
    name: str, queues: Sequence[str], store: Store, is_stopping: Callable[[], bool]
) -> bool:
    """Wait for the first task there is to do; false when told to stop before.

    Raises:
        BitfrontError: it cannot work here at all.
    """
    seen = -_SEEN_SECONDS
    while not is_stopping():
        try:
            seen = _said(store.queue, name, queues, seen)
            if store.doorbell.is_due(queues):
                return True
            time.sleep(_pause())
        except StorageError as error:
            _wait_for_database(error)
    return False


def _said(queue: Queue, name: str, queues: Sequence[str], seen: float) -> float:
    """When the database last heard of this worker; it hears again when that is due."""
    if time.monotonic() - seen <= _SEEN_SECONDS:
        return seen
    # A process that is started again keeps the name.
    age = time.monotonic() - _BEGUN
    queue.seen(name, ",".join(queues), "local", __version__, age)
    return time.monotonic()


def _pause() -> float:
    return _IDLE_SECONDS * (0.5 + random.random())


def _wait_for_database(error: StorageError) -> None:
    logger.warning("waits for the database: %s", error)
    time.sleep(_AWAY_SECONDS)


def loop(
    name: str,
    queues: Sequence[str],
    bench: AnyPlace,
    stages: Mapping[Stage, Work[AnyPlace]],
    is_stopping: Callable[[], bool],
) -> None:
    """Claim and work.

    Args:
        name: of the worker.
        queues: what it takes tasks from.
        bench: where it works.
        stages: what it does, by stage.
        is_stopping: whether to end.

    Raises:
        BitfrontError: it cannot work here at all.
    """
    queue, seen = bench.store.queue, -_SEEN_SECONDS
    while not is_stopping() and not is_large(bench.settings.max_worker_gb):
        try:
            seen = _said(queue, name, queues, seen)
            claim = queue.claim(name, queues, bench.warm)
            if claim is not None:
                work(bench, claim, stages, is_stopping)
            else:
                time.sleep(_pause())
        except StorageError as error:
            _wait_for_database(error)


def is_large(gigabytes: float) -> bool:
    """Whether this process ever used more memory than it may; 0 for no limit."""
    if not gigabytes:
        return False
    # Unlike `ru_maxrss`, it is not of the process that started this one.
    status = Path("/proc/self/status").read_text()
    (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return gigabytes < int(peak) / 2**20


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
