"""Local workers: processes of this machine that are started again when they end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_STOP_SECONDS = 10.0
_QUICK_SECONDS = 5.0
_LONGEST_PAUSE = 30.0


@dataclass(eq=False)
class LocalWorkers:
    """Keeps a number of worker processes alive inside a `with` block.

    A worker that ends is replaced; one that ends at once again and again is replaced ever later.
    At the end of the block they are told to stop, give their tasks back, and are killed if they
    do not.

    Args:
        n: how many.
        queues: what they take tasks from.
        environment: settings for them, on top of this process's own.
        module: what each runs, given its name and the queues.
    """

    n: int
    queues: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    module: str = "bitfront.workers.child"
    _stopping: threading.Event = field(default_factory=threading.Event, init=False)
    _threads: list[threading.Thread] = field(default_factory=list, init=False)
    _running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict, init=False)

    def __enter__(self) -> LocalWorkers:
        for slot in range(self.n):
            thread = threading.Thread(target=self._keep, args=(slot,), name=f"worker-{slot}")
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def pids(self) -> list[int]:
        """Processes that run now."""
        return [process.pid for process in self._running.values() if process.poll() is None]

    def _keep(self, slot: int) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            begun = time.monotonic()
            process = self._running[slot] = self._started(slot)
            while process.poll() is None and not self._stopping.wait(_POLL_SECONDS):
                pass
            if process.poll() is None:
                _stop(process)
                return
            logger.warning("worker %d ended with code %d", slot, process.returncode)
            is_quick = time.monotonic() - begun < _QUICK_SECONDS
            pause = min(_LONGEST_PAUSE, max(0.5, 2 * pause)) if is_quick else 0.0

    def _started(self, slot: int) -> subprocess.Popen[bytes]:
        name = f"{socket.gethostname()}-{os.getpid()}-{slot}"
        command = [sys.executable, "-m", self.module, name, *self.queues]
        # Ctrl-C goes to the parent alone, which stops them in order.
        return subprocess.Popen(
            command, env={**os.environ, **self.environment}, start_new_session=True
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
