"""Workers of this machine: processes that are started again when they end."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence

from bitfront.processes import Processes


class LocalWorkers(Processes):
    """Keeps a number of worker processes alive inside a `with` block.

    At its end they are told to stop and give their tasks back.

    Args:
        n: how many.
        queues: what they take tasks from.
        environment: settings for them, on top of this process's own.
        module: what each runs, given its name and the queues.
    """

    def __init__(
        self,
        n: int,
        queues: Sequence[str],
        environment: Mapping[str, str] | None = None,
        module: str = "bitfront.workers.child",
    ) -> None:
        place = f"{socket.gethostname()}-{os.getpid()}"
        command = [sys.executable, "-m", module]
        self._names = [f"{place}-{slot}" for slot in range(n)]
        super().__init__([[*command, name, *queues] for name in self._names], environment)

    def pid(self, worker: str) -> int | None:
        """The process of a worker, by its name; `None` where it is none of these, or ended."""
        if worker not in self._names:
            return None
        process = self._running.get(self._names.index(worker))
        return process.pid if process is not None and process.poll() is None else None


class CeleryWorker(Processes):
    """Keeps a Celery worker alive inside a `with` block: losing its broker may end it.

    Args:
        queue: what it takes tasks from.
        n: how many processes work.
        environment: settings for it, on top of this process's own.
        module: what it runs, given the queue and the number.
    """

    def __init__(
        self,
        queue: str,
        n: int = 1,
        environment: Mapping[str, str] | None = None,
        module: str = "bitfront.workers.tasks",
    ) -> None:
        super().__init__([[sys.executable, "-m", module, queue, str(n)]], environment)

    def pid(self, worker: str) -> int | None:
        """The process of a worker, by the name it gave itself; `None` where it is none of these."""
        place, _, pid = worker.rpartition("-")
        is_mine = place in {f"{socket.gethostname()}-{parent}" for parent in self.pids}
        return int(pid) if is_mine else None
