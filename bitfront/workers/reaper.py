"""Reaper: ends processes that measure for a cancelled study and cannot hear of it.

A library that holds the interpreter stops the lease's thread too; who started the process looks.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import suppress
from typing import Protocol

from bitfront.errors import StorageError
from bitfront.repeated import Repeated
from bitfront.store import Store
from bitfront.store.records import Claim

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 3.3
"""The lease's own thread is as quick; together with a look it stays below five seconds."""


class Workers(Protocol):
    """What this module needs of those that it looks after."""

    def pid(self, worker: str) -> int | None:
        """The process of a worker, by its name; `None` where it is none of these."""


class Reaper(Repeated):
    """Looks after the workers of this machine from a thread of its own inside a `with` block.

    Args:
        store: where tasks are.
        workers: whose processes are ended.
    """

    def __init__(self, store: Store, workers: Workers) -> None:
        super().__init__("reaper", _LOOK_SECONDS)
        self._store = store
        self._workers = workers
        self._since: dict[Claim, float] = {}

    def once(self) -> None:
        """End what has been worked at in vain for too long."""
        with suppress(StorageError):  # the database may be back at the next look
            held, now = self._held(), time.monotonic()
            self._since = {claim: self._since.get(claim, now) for claim in held}
            for claim, pid in held.items():
                if now - self._since[claim] > _PATIENCE_SECONDS:
                    self._end(claim, pid)

    def _held(self) -> dict[Claim, int]:
        """What is worked at in vain, and by which processes of these workers."""
        found = self._store.activity.in_vain().items()
        pids = {claim: self._workers.pid(worker) for claim, worker in found}
        return {claim: pid for claim, pid in pids.items() if pid is not None}

    def _end(self, claim: Claim, pid: int) -> None:
        logger.warning("task %d of a cancelled study did not stop: ending its process", claim.task)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if claim in self._store.activity.in_vain():  # it has said nothing itself
            self._store.queue.abandon(claim)
