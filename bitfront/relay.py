"""Relay: rings for every waiting task until a worker takes it. Any number of them may run."""

from __future__ import annotations

import logging

from celery import Celery

from bitfront.broker import n_unheard, ring
from bitfront.errors import StorageError
from bitfront.repeated import Repeated
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


class Relay(Repeated):
    """Rings from a thread of its own inside a `with` block.

    Args:
        store: where tasks wait.
        app: the Celery application.
    """

    def __init__(self, store: Store, app: Celery) -> None:
        super().__init__("relay", _EVERY_SECONDS)
        self._store = store
        self._app = app

    def once(self) -> None:
        """`ring_due`; the database may be back at the next look."""
        try:
            ring_due(self._store, self._app)
        except StorageError as error:
            logger.warning("cannot look for waiting tasks: %s", error)
