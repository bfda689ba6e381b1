"""Relay: rings for every waiting task until a worker takes it. Any number of them may run."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from celery import Celery

from bitfront.broker import n_unheard, ring
from bitfront.errors import StorageError
from bitfront.store import Store

logger = logging.getLogger(__name__)

_EVERY_SECONDS = 0.5
_AGAIN_SECONDS = 5.0


def ring_due(store: Store, app: Celery) -> None:
    """Ring for the tasks that nobody rang for within the last seconds.

    Raises:
        StorageError: the database cannot be used.
    """
    due = store.doorbell.take_to_ring(_AGAIN_SECONDS)
    unheard: dict[str, int] = {}
    for index, task in enumerate(due):
        if task.queue not in unheard:
            unheard[task.queue] = n_unheard(app, task.queue)
        n_waiting = sum(each.queue == task.queue for each in due)
        # Messages that nobody took yet wake workers as well as new ones would.
        if unheard[task.queue] >= n_waiting:
            continue
        if not ring(app, task.queue, task.id):
            # Each attempt takes seconds, and the others would fare alike.
            store.doorbell.unring([each.id for each in due[index:]])
            return
        unheard[task.queue] += 1


class Relay:
    """Rings from a thread of its own inside a `with` block.

    Args:
        store: where tasks wait.
        app: the Celery application.
    """

    def __init__(self, store: Store, app: Celery) -> None:
        self._store = store
        self._app = app
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="relay", daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._stopping.wait(_EVERY_SECONDS):
            try:
                ring_due(self._store, self._app)
            except StorageError as error:
                logger.warning("cannot look for waiting tasks: %s", error)
