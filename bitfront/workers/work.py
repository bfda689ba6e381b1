"""One task from its claim to its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol, TypeVar

from bitfront.errors import BitfrontError, LostLease, StorageError
from bitfront.settings import Settings
from bitfront.store import Store
from bitfront.store.queue import Queue
from bitfront.store.records import Claim, Outcome, Stage
from bitfront.traces import span
from bitfront.workers.lease import GivenUp, Lease, closed

logger = logging.getLogger(__name__)

_AWAY_SECONDS = 1.0


class Place(Protocol):
    """What this module needs of a bench."""

    @property
    def store(self) -> Store:
        """The database."""

    @property
    def settings(self) -> Settings:
        """Of this machine."""

    @property
    def warm(self) -> str | None:
        """The study that is loaded."""

    def cool(self) -> None:
        """Let go of it."""


AnyPlace = TypeVar("AnyPlace", bound=Place)
Work = Callable[[AnyPlace, Claim, Lease], Outcome]


def work(
    bench: AnyPlace,
    claim: Claim,
    stages: Mapping[Stage, Work[AnyPlace]],
    is_stopping: Callable[[], bool],
) -> None:
    """Do a claimed task and store what it leaves, or say why it left nothing.

    Args:
        bench: where.
        claim: what.
        stages: what to do, by stage.
        is_stopping: whether this worker was told to stop; the task is then given back.
    """
    queue = bench.store.queue
    told = claim.about
    logger.info("begins", extra=told)
    try:
        with (
            span(f"task {claim.stage}", study=claim.study_id, number=claim.number),
            Lease(queue, claim, bench.settings.task_seconds, is_stopping) as lease,
        ):
            outcome = stages[claim.stage](bench, claim, lease)
            _finish(queue, claim, outcome, lease)
        logger.info("done", extra=told)
    except GivenUp as stopped:
        logger.info("given up: %s", stopped.reason, extra=told)
        closed(queue, claim, stopped.reason)
    except LostLease as late:
        logger.warning("%s", late, extra=told)
        bench.cool()
    except StorageError as error:
        # The disk may be freed, the database may be back.
        _failed(bench, claim, error, final=False)
    except BitfrontError as error:
        _failed(bench, claim, error, final=True)
    except Exception as error:
        logger.exception("failed", extra=told)
        _failed(bench, claim, error, final=False)


def _finish(queue: Queue, claim: Claim, outcome: Outcome, lease: Lease) -> None:
    """Store what was done, however long the database is away: doing it again would cost more."""
    while True:
        try:
            queue.finish(claim, outcome)
            return
        except StorageError as error:
            told = "the result of task %d waits: %s"
            logger.warning(told, claim.task, error, extra=claim.about)
            lease.check()
            time.sleep(_AWAY_SECONDS)


def _failed(bench: Place, claim: Claim, error: Exception, final: bool) -> None:
    bench.cool()
    kind = "" if isinstance(error, BitfrontError) else f"{type(error).__name__}: "
    # PostgreSQL stores no NUL.
    line = f"{kind}{' '.join(str(error).split())}"[:2000].replace("\0", "")
    # With the database gone the lease ends by itself.
    with suppress(StorageError):
        bench.store.queue.fail(claim, line, final)
