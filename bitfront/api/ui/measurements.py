"""What was measured of a study, read without spelling out thousands of allocations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidArgument, NotFound
from bitfront.pareto import OBJECTIVES, non_dominated, objectives
from bitfront.report.agreement import tau
from bitfront.space import SearchSpace
from bitfront.store import Store
from bitfront.store.records import TrialRow
from bitfront.study import Study
from bitfront.table import LayerTable
from bitfront.trial import Trial, TrialState, loss_of


@dataclass(frozen=True, eq=False)
class Measurements:
    """The trials of a study.

    Args:
        study: the request.
        space: what is searched; `None` before the study is prepared.
        rows: its trials by number.
    """

    study: Study
    space: SearchSpace | None
    rows: tuple[TrialRow, ...]

    def on(self, text: str) -> tuple[TrialRow, ...]:
        """Complete trials of a text with everything a front needs."""
        return tuple(row for row in self._usable if row.text == text)

    @cached_property
    def _usable(self) -> tuple[TrialRow, ...]:
        return tuple(row for row in self.rows if _is_usable(row))

    @property
    def failed(self) -> tuple[TrialRow, ...]:
        """Trials that ended in an error."""
        return tuple(row for row in self.rows if row.state is TrialState.FAIL)

    @cached_property
    def text(self) -> str:
        """The text that counts: evaluation as soon as something is measured on it."""
        return "evaluation" if self.on("evaluation") else "calibration"

    @cached_property
    def uniforms(self) -> tuple[TrialRow, ...]:
        """Uniform baselines on the text that counts, smallest first."""
        return _by_size([row for row in self.on(self.text) if row.origin == "uniform"])

    @cached_property
    def front(self) -> tuple[TrialRow, ...]:
        """Non-dominated trials of the text that counts, smallest first."""
        rows = self.on(self.text)
        if self.text == "calibration":
            return self.outline(rows)
        if not rows:
            return ()
        quantities = objectives(rows, self.study.budget.bounds())
        kept = non_dominated(np.array([[row.values[q] for q in quantities] for row in rows]))
        return _by_size([row for row, is_kept in zip(rows, kept, strict=True) if is_kept])

    @staticmethod
    def outline(rows: Sequence[TrialRow]) -> tuple[TrialRow, ...]:
        """Those that no other beats in KL and bytes, smallest first."""
        kept: list[TrialRow] = []
        for row in sorted(rows, key=lambda r: (r.values["bytes"], loss_of(r.values))):
            if not kept or loss_of(row.values) < loss_of(kept[-1].values):
                kept.append(row)
        return tuple(kept)

    @cached_property
    def best(self) -> TrialRow | None:
        """The smallest KL within the budget on the text that counts."""
        bounds = self.study.budget.bounds()
        within = [
            row
            for row in self.on(self.text)
            if all(row.values.get(q, math.inf) <= bound for q, bound in bounds.items())
        ]
        return min(within, key=lambda row: loss_of(row.values), default=None)

    @cached_property
    def n_bytes(self) -> float | None:
        """The budget as bytes of the whole checkpoint; `None` where it is not one of bytes."""
        if self.space is None:
            return None
        try:
            limit = self.study.budget.limits(self.space).get("bytes")
        except InvalidArgument:  # the model fits as it is
            return None
        return None if limit is None else limit + self.space.outside_bytes

    def row(self, number: int) -> TrialRow:
        """A measured trial.

        Raises:
            NotFound: there is none of that number, or it is not measured.
        """
        found = next((row for row in self._usable if row.number == number), None)
        if found is None:
            raise NotFound(f"Trial {number} does not exist or is not measured: choose another.")
        return found

    def trial(self, row: TrialRow) -> Trial:
        """A trial with its allocation."""
        assert self.space is not None
        allocation = self.space.decode(list(row.choice))
        return Trial(row.number, allocation, row.text, row.origin, row.state, row.values, row.error)


def measurements(
    store: Store, study_id: str, study: Study, text: str | None = None
) -> Measurements:
    """Read the trials of a study; of one text where it is named."""
    rows = tuple(store.trials.rows(study_id, text))
    return Measurements(study, store.trials.space(study_id), rows)


def _is_usable(row: TrialRow) -> bool:
    sizes = (row.values.get(quantity, math.nan) for quantity in OBJECTIVES[1:])
    return row.state is TrialState.COMPLETE and all(
        map(math.isfinite, (loss_of(row.values), *sizes))
    )


def _by_size(rows: Sequence[TrialRow]) -> tuple[TrialRow, ...]:
    return tuple(sorted(rows, key=lambda r: (r.values["bytes"], loss_of(r.values))))


@dataclass(frozen=True, eq=False)
class Agreement:
    """Predicted against measured loss on the calibration text.

    Args:
        rows: what was measured.
        predicted: sum of the loss table over each allocation, `[n_rows]`.
    """

    rows: tuple[TrialRow, ...]
    predicted: NDArray[np.float64]

    @classmethod
    def of(cls, measured: Measurements, loss: LayerTable) -> Agreement:
        """Add up the table over every allocation at once."""
        rows = measured.on("calibration")
        if not rows:
            return cls((), np.zeros(0))
        choices = np.array([np.frombuffer(row.choice, dtype=np.uint8) for row in rows])
        return cls(rows, loss.grouped[np.arange(choices.shape[1]), choices].sum(axis=1))

    def tau(self, uniform: bool = True) -> float | None:
        """Kendall's tau; `uniform` says whether baselines, whose spread flatters it, count."""
        pairs = [
            (float(p), loss_of(row.values))
            for p, row in zip(self.predicted, self.rows, strict=True)
            if uniform or row.origin != "uniform"
        ]
        return tau([p for p, _ in pairs], [kl for _, kl in pairs])
