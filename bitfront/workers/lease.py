"""Lease: keeps a claim alive while its work goes on, and tells the work when to stop."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from bitfront.errors import LostLease, StorageError
from bitfront.progress import Event
from bitfront.repeated import Repeated
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


class Lease(Repeated):
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
        super().__init__(f"lease-{claim.task}", _LOOK_SECONDS)
        self._queue = queue
        self._claim = claim
        self._max_seconds = max_seconds
        self._is_stopping = is_stopping
        self._leave = leave
        self._latest = Event(claim.stage.value, 0, 1)
        self._reason = ""
        self._begun = self._renewed = time.monotonic()

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

    def once(self) -> None:
        """Look whether the work may go on, and renew the claim when that is due."""
        now = time.monotonic()
        if now - self._begun > self._max_seconds:
            self._reason = "slow"
        elif self._is_stopping():
            self._reason = "stopped"
        else:
            try:
                self._look(now)
            except Exception:  # without this thread the lease would run out unseen
                told = "task %d cannot renew its lease"
                logger.exception(told, self._claim.task, extra=self._claim.about)
        if self._reason and not self._stopping.wait(_GRACE_SECONDS):
            self._end()

    def _look(self, now: float) -> None:
        """Renew the claim when that is due; look for a cancellation."""
        try:
            if now - self._renewed < self._queue.lease_seconds / 4:
                if self._queue.is_cancelled(self._claim):
                    self._reason = "cancelled"
                return
            latest = self._latest
            if self._queue.renew(self._claim, latest.stage, latest.done, latest.total):
                self._reason = "cancelled"
        except LostLease:
            self._reason = "lost"
        except StorageError as error:
            # The work goes on: the database may be back before the lease ends, or soon after.
            told = "task %d cannot renew its lease: %s"
            logger.warning(told, self._claim.task, error, extra=self._claim.about)
            return
        self._renewed = now

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
