"""The Optuna mirror: every study where optuna-dashboard finds it; its loss loses nothing."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field

import optuna
from optuna.storages import BaseStorage

from bitfront.errors import Conflict, NotFound, StorageError
from bitfront.mirror.copied import MARK, CopiedStudy
from bitfront.mirror.storage import Storage
from bitfront.store import Store
from bitfront.store.records import Standing, StudyState

__all__ = ["Mirror"]

LAST = 1000
"""Trials of a study that the mirror keeps besides its front and baselines."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Mirror:
    """Studies of a store as Optuna studies, named by their ids.

    How far each got is kept in the mirror itself. One process writes it; another one that tries
    only looks on.

    Args:
        store: what is mirrored.
        url: where to, as in `Storage`.
        last: trials of a study that are kept besides its front and baselines.
    """

    store: Store
    url: str
    last: int = LAST
    _known: dict[str, Standing] = field(default_factory=dict, init=False)
    _open: dict[str, CopiedStudy] = field(default_factory=dict, init=False)
    _is_read: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._storage = Storage(self.url)
        # It tells of every study that is made.
        optuna.logging.set_verbosity(optuna.logging.WARNING)

    @property
    def storage(self) -> BaseStorage:
        """What the dashboard shows; another object once the old one was lost."""
        return self._storage.optuna

    def update(self) -> int:
        """Add what finished since the last time; how many trials were added.

        Whatever goes wrong is logged, and tried again with the next update.
        """
        try:
            if self._storage.is_lost:
                _log.warning("the file of the Optuna mirror is gone: it is made anew")
                self.close()
            return self._follow_all() if self._storage.hold() else 0
        except StorageError as error:
            _log.warning("the Optuna mirror waits: %s", error)
        except Exception:
            _log.exception("the Optuna mirror cannot be updated now")
        self.close()
        return 0

    def rebuild(self) -> int:
        """Drop every mirrored study and mirror it anew; how many trials there are then.

        Raises:
            Conflict: another process writes the mirror.
        """
        if not self._storage.hold():
            raise Conflict("Another process writes the Optuna mirror: stop that dashboard first.")
        self._read()
        for study_id in list(self._known):
            self._drop(study_id)
        return self._follow_all()

    def close(self) -> None:
        """Let go of the mirror; another process may write it."""
        self._known.clear()
        self._open.clear()
        self._is_read = False
        self._storage.close()

    def _read(self) -> None:
        """What earlier processes left."""
        if self._is_read:
            return
        for study in self.storage.get_all_studies():
            if MARK in study.user_attrs:
                position, _ = study.user_attrs[MARK]
                state = StudyState(study.user_attrs.get("state", StudyState.WAITING))
                self._known[study.study_name] = Standing(study.study_name, state, position)
        self._is_read = True

    def _follow_all(self) -> int:
        self._read()
        standings = self.store.finished.standings()
        for study_id in set(self._known) - {standing.study_id for standing in standings}:
            self._drop(study_id)
        return sum(
            self._follow(standing)
            for standing in standings
            if self._known.get(standing.study_id) != standing
        )

    def _follow(self, standing: Standing) -> int:
        study_id = standing.study_id
        try:
            if study_id not in self._open:
                self._open[study_id] = CopiedStudy(self.store, self.storage, study_id, self.last)
            n_added = self._open[study_id].follow(standing.state)
        except NotFound:
            # Deleted since the studies were listed.
            return 0
        except (ValueError, TypeError, LookupError):
            # Of this study alone; it is tried again when it goes on.
            _log.exception("a study cannot be mirrored", extra={"study": study_id})
            self._open.pop(study_id, None)
            n_added = 0
        self._known[study_id] = standing
        if standing.state.is_final:
            self._open.pop(study_id, None)
        return n_added

    def _drop(self, study_id: str) -> None:
        self._known.pop(study_id, None)
        self._open.pop(study_id, None)
        with suppress(KeyError):
            optuna.delete_study(study_name=study_id, storage=self.storage)
