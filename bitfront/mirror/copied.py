"""CopiedStudy: one study in Optuna, and how far it follows the stored one."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage

from bitfront.mirror.plots import save_plots
from bitfront.mirror.trials import OBJECTIVES, chosen, front, frozen, origins
from bitfront.store import Store
from bitfront.store.records import FinishedTrial, StudyState
from bitfront.trial import TEXTS

MARK = "mirrored"
"""User attribute that a mirrored study has and no other: how far it got."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class CopiedStudy:
    """Trials of a stored study, added to Optuna as they finish.

    It can be left at any point and opened again: trials that are there are not added twice.

    Args:
        store: what is copied.
        storage: where to.
        study_id: which study; the name of its copy.
        last: how many trials are kept besides the front and the baselines. Optuna removes no
            single trial, so the copy grows by as many again and is then made anew.
    """

    store: Store
    storage: BaseStorage
    study_id: str
    last: int
    _position: int = field(default=0, init=False)
    _n_kept: int = field(default=0, init=False)
    _numbers: set[int] = field(default_factory=set, init=False)
    _known: list[FinishedTrial] = field(default_factory=list, init=False)
    _plotted: tuple[int, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        self._request = self.store.studies.get(self.study_id).study
        self._origins = origins(self._request)
        self._open()
        attributes = self._copy.user_attrs
        self._position, self._n_kept = attributes.get(MARK, (0, self.last))
        trials = self._copy.get_trials(deepcopy=False)
        self._numbers = {trial.user_attrs["trial"] for trial in trials}
        # What later trials are compared with: read once, then kept up.
        self._remember(self.store.finished.since(self.study_id), self._position)

    def _open(self) -> None:
        self._copy = optuna.create_study(
            storage=self.storage,
            study_name=self.study_id,
            directions=["minimize"] * len(OBJECTIVES),
            load_if_exists=True,
            # Never asked, but the default of several objectives reads every trial when it is.
            sampler=RandomSampler(),
        )
        if MARK not in self._copy.user_attrs:
            model = self._request.model
            shown = Path(model).name if Path(model).is_absolute() else model
            self._copy.set_user_attr("model", shown)
            self._copy.set_user_attr("budget", str(self._request.budget))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._copy.set_metric_names(list(OBJECTIVES))
            self._copy.set_user_attr(MARK, (0, self.last))

    def _remember(self, trials: list[FinishedTrial], position: int) -> None:
        seen = [*self._known, *(trial for trial in trials if trial.position <= position)]
        keep = {trial.position for trial in front(seen)}
        self._known = [t for t in seen if t.position in keep or t.origin == "uniform"]

    def follow(self, state: StudyState) -> int:
        """Add what finished since; how many trials were added."""
        if self._copy.user_attrs.get("state") != state:
            self._copy.set_user_attr("state", state.value)
        new = self.store.finished.since(self.study_id, self._position)
        if not new:
            return 0
        pending = [trial for trial in new if trial.number not in self._numbers]
        if len(self._numbers) + len(pending) > self._n_kept + self.last:
            pending = self._begin_anew(state)
        for trial in pending:
            self._copy.add_trial(frozen(trial, self._origins))
            self._numbers.add(trial.number)
        self._remember(new, new[-1].position)
        self._plot()
        # Last: until it is set, all of this is done again.
        self._copy.set_user_attr(MARK, (new[-1].position, self._n_kept))
        self._position = new[-1].position
        return len(pending)

    def _begin_anew(self, state: StudyState) -> list[FinishedTrial]:
        """Empty the copy; what belongs into it."""
        kept = chosen(self.store.finished.since(self.study_id), self.last)
        if self._numbers:
            optuna.delete_study(study_name=self.study_id, storage=self.storage)
            self._open()
            self._copy.set_user_attr("state", state.value)
            self._numbers, self._plotted = set(), ()
        self._n_kept = len(kept)
        return kept

    def _plot(self) -> None:
        for text in reversed(TEXTS):
            points = [t for t in front(self._known) if t.text == text]
            if points:
                break
        else:
            return
        shown = tuple(point.number for point in points)
        if shown == self._plotted:
            return
        uniforms = [t for t in self._known if t.text == text and t.origin == "uniform"]
        try:
            save_plots(self.store, self._copy, self._request, points, uniforms)
            self._plotted = shown
        except (ValueError, LookupError, ArithmeticError):
            _log.exception("no plots in the mirror", extra={"study": self.study_id})
