"""ReportData: everything a report shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from bitfront.experts import TokensSeen
from bitfront.pareto import LATENCY, ParetoFront
from bitfront.report.grid import Grid
from bitfront.space import SearchSpace
from bitfront.table import LayerTable
from bitfront.trial import Trial, TrialState


@dataclass(frozen=True, eq=False)
class ReportData:
    """A finished study, as nouns.

    Args:
        title: name of the model.
        space: what was searched.
        front: non-dominated trials on the evaluation text.
        evaluations: every trial on the evaluation text, uniform baselines (origin `"uniform"`)
            included.
        calibrations: every trial on the calibration text.
        loss: the estimator's table, from which predictions are added up.
        budget: the budget as the user wrote it, such as `"3.5bpw"`.
        limits: what it allows the searched layers, as `Budget.limits` returns it.
        chosen: the point at the budget.
        provenance: what made the result, in the order to show it: command, digests, versions,
            seed, machine.
        latency: what predicted latencies, such as `"latency:table=gpu.json"`; empty for nothing.
        checks: predicted decoding steps held against measured ones, as `latency.json` has them.
        experts: calibration tokens that each expert saw.
    """

    title: str
    space: SearchSpace
    front: ParetoFront
    evaluations: tuple[Trial, ...]
    calibrations: tuple[Trial, ...]
    loss: LayerTable
    budget: str
    limits: Mapping[str, float]
    chosen: Trial
    provenance: Mapping[str, str]
    latency: str = ""
    checks: tuple[Mapping[str, object], ...] = ()
    experts: TokensSeen = field(default_factory=lambda: TokensSeen({}))

    @cached_property
    def measured(self) -> tuple[Trial, ...]:
        """Complete evaluation trials, smallest first."""
        usable = [t for t in self.evaluations if _is_usable(t)]
        return tuple(sorted(usable, key=lambda t: t.values["bytes"]))

    @cached_property
    def uniforms(self) -> tuple[Trial, ...]:
        """The uniform baselines among the measured, smallest first."""
        return tuple(t for t in self.measured if t.origin == "uniform")

    @cached_property
    def predictions(self) -> tuple[tuple[Trial, float], ...]:
        """Complete calibration trials, each with the sum of the loss table over its layers."""
        return tuple(
            (t, self.loss.total(self.loss.space.encode(t.allocation)))
            for t in self.calibrations
            if _is_usable(t)
        )

    @cached_property
    def grid(self) -> Grid:
        """The searched layers as blocks x kinds: the layout of both maps."""
        return Grid.of(self.space.layers)

    @property
    def is_timed(self) -> bool:
        """Whether every point of the front has a predicted latency."""
        return bool(self.front.trials) and all(LATENCY in t.values for t in self.front.trials)

    @property
    def byte_limit(self) -> float | None:
        """Limit on the whole checkpoint; `None` when the budget is not one of bytes."""
        limit = self.limits.get("bytes")
        return None if limit is None else limit + self.space.outside_bytes


def _is_usable(trial: Trial) -> bool:
    needed = (trial.loss, trial.values.get("bytes", math.nan))
    return trial.state is TrialState.COMPLETE and all(map(math.isfinite, needed))
