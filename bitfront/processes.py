"""Processes: how this one is stopped, and programs beside it that are started when they end."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Self

logger = logging.getLogger(__name__)

PARENT = "BITFRONT_PARENT"
"""In the environment of each: the process that started it, without which it has no use."""
_POLL_SECONDS = 0.2
_STOP_SECONDS = 30.0
_QUICK_SECONDS = 5.0
_LONGEST_PAUSE = 30.0


class Processes:
    """Keeps programs running inside a `with` block.

    One that ends is started again; one that ends at once again and again is started ever later. At
    the end of the block they are told to stop, and are killed if they do not.

    Args:
        commands: what to run.
        environment: for them, on top of this process's own.
    """

    def __init__(
        self, commands: Sequence[Sequence[str]], environment: Mapping[str, str] | None = None
    ) -> None:
        self._commands = commands
        self._environment = {**(environment or {}), PARENT: str(os.getpid())}
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        for slot, command in enumerate(self._commands):
            thread = threading.Thread(target=self._keep, args=(slot, command), name=f"keep-{slot}")
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
        # A copy: they are started by threads.
        running = list(self._running.values())
        return [process.pid for process in running if process.poll() is None]

    def _keep(self, slot: int, command: Sequence[str]) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            begun = time.monotonic()
            # Ctrl-C goes to the parent alone, which stops them in order.
            process = self._running[slot] = subprocess.Popen(
                command, env={**os.environ, **self._environment}, start_new_session=True
            )
            while process.poll() is None and not self._stopping.wait(_POLL_SECONDS):
                pass
            if process.poll() is None:
                _stop(process)
                return
            logger.warning("%s ended with code %d", " ".join(command[1:4]), process.returncode)
            is_quick = time.monotonic() - begun < _QUICK_SECONDS
            pause = min(_LONGEST_PAUSE, max(0.5, 2 * pause)) if is_quick else 0.0


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_with_parent() -> None:
    """Have this process stop as by SIGTERM once the one that started it is gone."""
    parent = os.environ.get(PARENT, "")
    if not parent.isdigit():
        return

    def look() -> None:
        while os.getppid() == int(parent):
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, name="parent", daemon=True).start()


def end_when_stuck(seconds: float) -> None:
    """Have this process end, saying where it was, once no Python ran in it for some seconds.

    A library that holds the interpreter stops every thread that could notice; this clock is none.
    """

    def go_on() -> None:
        while True:
            faulthandler.dump_traceback_later(seconds, exit=True, file=2)
            time.sleep(min(1.0, seconds / 4))

    threading.Thread(target=go_on, name="alive", daemon=True).start()


@contextmanager
def stoppable() -> Iterator[None]:
    """Leaves the block at the first Ctrl-C or SIGTERM; what is undone then is not interrupted."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in kept:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in kept:
        signal.signal(number, stop)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        for number, before in kept.items():
            signal.signal(number, before)
