"""Lease: keeps a claim alive while its work goes on, and tells the work when to stop."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

from bitfront.errors import LostLease, StorageError
from bitfront.progress import Event
from bitfront.store.queue import Queue
from bitfront.store.records import Claim

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
"""Between looks at whether the study was cancelled."""
STUCK_LEASES = 3.0
"""A process in which no Python ran for so many leases is ended: its lease thread is stuck too."""
_GRACE_SECONDS = 3.0
"""What runs no Python for so long after it was told to stop is ended with its process."""


class GivenUp(BaseException):
    """Work that was stopped from outside: no error, so nothing in between may catch it.

    Attributes:
        reason: `"cancelled"`, `"lost"`, `"stopped"` or `"slow"`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Lease:
    """Renews a claim from a thread of its own inside a `with` block.

    The work calls `check` as often as it can, through `progress`. Work that does not, because a
    kernel or a library holds it, is ended with its whole process after a few seconds: a lease that
    is neither renewed nor given back would end all the same.

    Args:
        queue: where the claim is.
        claim: what is being done.
        max_seconds: longest time of it.
        is_stopping: whether this worker was told to stop.
        leave: ends the process at once.
    """

    def __init__(
        self,
        queue: Queue,
        claim: Claim,
        max_seconds: float,
        is_stopping: Callable[[], bool],
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self._queue = queue
        self._claim = claim
        self._max_seconds = max_seconds
        self._is_stopping = is_stopping
        self._leave = leave
        self._latest = Event(claim.stage.value, 0, 1)
        self._reason = ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease-{claim.task}", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def progress(self, event: Event) -> None:
        """Take what the library reports.

        Raises:
            GivenUp: the work is to stop.
        """
        self._latest = event
        self.check()

    def check(self) -> None:
        """Go on, or stop.

        Raises:
            GivenUp: the work is to stop.
        """
        if not self._reason and self._is_stopping():
            self._reason = "stopped"
        if self._reason:
            raise GivenUp(self._reason)

    def _keep(self) -> None:
        begun = renewed = time.monotonic()
        while not self._done.wait(_LOOK_SECONDS):
            now = time.monotonic()
            if now - begun > self._max_seconds:
                self._reason = "slow"
            elif self._is_stopping():
                self._reason = "stopped"
            else:
                try:
                    renewed = self._renewed(now, renewed)
                except Exception:  # without this thread the lease would run out unseen
                    told = "task %d cannot renew its lease"
                    logger.exception(told, self._claim.task, extra=self._claim.about)
            if self._reason and not self._done.wait(_GRACE_SECONDS):
                self._end()

    def _renewed(self, now: float, renewed: float) -> float:
        """The time of the last renewal; makes one when it is due, and looks for a cancellation."""
        try:
            if now - renewed < self._queue.lease_seconds / 4:
                if self._queue.is_cancelled(self._claim):
                    self._reason = "cancelled"
                return renewed
            latest = self._latest
            if self._queue.renew(self._claim, latest.stage, latest.done, latest.total):
                self._reason = "cancelled"
        except LostLease:
            self._reason = "lost"
        except StorageError as error:
            # The work goes on: the database may be back before the lease ends, or soon after.
            told = "task %d cannot renew its lease: %s"
            logger.warning(told, self._claim.task, error, extra=self._claim.about)
            return renewed
        return now

    def _end(self) -> None:
        told = "task %d did not stop (%s): ending its process"
        logger.warning(told, self._claim.task, self._reason, extra=self._claim.about)
        try:
            closed(self._queue, self._claim, self._reason)
        finally:
            self._leave(1)


def closed(queue: Queue, claim: Claim, reason: str) -> None:
    """Say in the queue that a claim was given up, and why."""
    if reason == "cancelled":
        queue.abandon(claim)
    elif reason == "stopped":
        queue.release(claim)
    elif reason == "slow":
        queue.fail(claim, f"{claim.stage} took longer than a task may.", final=False)
