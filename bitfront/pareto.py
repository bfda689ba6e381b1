"""Pareto fronts of measured trials; every objective is minimized."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidArgument
from bitfront.trial import BOTH, SECOND, Trial, loss_name


def non_dominated(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of `[n, n_objectives]` no other row beats; of equal rows the first stays."""
    keep = np.zeros(len(points), dtype=bool)
    front, n_front = np.empty_like(points), 0
    # By the first objective, then the next, then by row: only an earlier one can beat a row or be
    # its twin, and whatever beats it is on the front or beaten by one there.
    for index in np.lexsort((np.arange(len(points)), *points.T[::-1])):
        if not (front[:n_front] <= points[index]).all(axis=1).any():
            keep[index] = True
            front[n_front], n_front = points[index], n_front + 1
    return keep


def hypervolume(points: NDArray[np.float64], reference_point: NDArray[np.float64]) -> float:
    """Volume dominated by `points [n, n_objectives]` up to `reference_point [n_objectives]`.

    Sweeps the last objective and recurses over the others: exact for any number of objectives,
    meant for two or three.
    """
    points = points[(points < reference_point).all(axis=1)]
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(reference_point[0] - points[:, 0].min())
    points = points[np.argsort(points[:, -1], kind="stable")]
    edges = np.append(points[:, -1], reference_point[-1])
    slabs = np.diff(edges)
    return sum(
        float(slab) * hypervolume(points[: index + 1, :-1], reference_point[:-1])
        for index, slab in enumerate(slabs)
        if slab > 0
    )


OBJECTIVES = ("kl", "bits", "bytes")
"""What a study without a cost of latency minimizes."""

LATENCY = "latency_ns"
"""Nanoseconds of a decoding step of the whole model, as a cost predicts them."""

TIMED = ("kl", "bytes", LATENCY)
"""What a study with a cost of latency minimizes."""


class Measured(Protocol):
    """What has measured values: a trial, or a row that stands for one."""

    @property
    def values(self) -> Mapping[str, float]:
        """Quantity to value."""


def objectives(trials: Sequence[Measured], bounded: Iterable[str] = ()) -> tuple[str, ...]:
    """`TIMED` where every trial has a latency, else `OBJECTIVES`, with the loss of the trials.

    KL on a second text follows that on the first.

    Whatever else a budget bounds comes last: of two allocations, the better one within the bound
    must not fall to one that is better but for it.

    Args:
        trials: what the front is of.
        bounded: quantities that the study's budget bounds, as `Budget.bounds` names them.
    """
    timed = bool(trials) and all(LATENCY in trial.values for trial in trials)
    measured = loss_name(trials[0].values) if trials else OBJECTIVES[0]
    has_second = bool(trials) and all(SECOND in trial.values for trial in trials)
    seconds = [SECOND] if has_second else []
    known = (measured, *seconds, *(TIMED if timed else OBJECTIVES)[1:])
    # Bits per weight and bytes differ by a factor and what is outside the search.
    others = (q for q in bounded if q not in {*known, "bits_per_weight"})
    return (*known, *(q for q in others if trials and all(q in t.values for t in trials)))


@dataclass(frozen=True)
class ParetoFront:
    """The non-dominated trials among those given, sorted by the last objective.

    The front of a study is over what `objectives` says. Without latency that is both sizes that a
    budget may bound: where a menu mixes group sizes, an allocation of fewer code bits may be the
    larger one.

    Args:
        trials: measured trials; dominated ones are dropped.
        objectives: quantities to minimize, loss first, such as `("kl", "bytes")` or `OBJECTIVES`.
    """

    trials: tuple[Trial, ...]
    objectives: tuple[str, ...] = ("kl", "bytes")

    def __post_init__(self) -> None:
        if self.trials:
            kept = [t for t, k in zip(self.trials, non_dominated(self.points), strict=True) if k]
            kept.sort(key=lambda t: [t.values[q] for q in reversed(self.objectives)])
            object.__setattr__(self, "trials", tuple(kept))

    @property
    def loss(self) -> str:
        """What models are judged by first: `"kl"` or `"cosine_error"`."""
        return self.objectives[0]

    @property
    def goal(self) -> str:
        """What the answer has least of within a budget: the loss, over both texts if there are."""
        return BOTH if SECOND in self.objectives else self.loss

    @property
    def points(self) -> NDArray[np.float64]:
        """Objective values, `[n_trials, n_objectives]`."""
        return np.array([[t.values[q] for q in self.objectives] for t in self.trials])

    def best(self, quantity: str, **at_most: float) -> Trial:
        """The trial with the smallest `quantity` among those within every bound of `at_most`.

        A trial that does not state a quantity is not within a bound of it.

        Raises:
            InvalidArgument: no trial is within the bounds.
        """
        pool = [
            trial
            for trial in self.trials
            if all(trial.values.get(q, math.inf) <= bound for q, bound in at_most.items())
        ]
        if not pool:
            self._check_stated(at_most)
            bounds = ", ".join(f"{q} <= {bound:g}" for q, bound in at_most.items()) or "any bound"
            have = ", ".join(
                f"{q} >= {min(t.values.get(q, math.inf) for t in self.trials):g}"
                for q in at_most
                if self.trials
            )
            raise InvalidArgument(
                f"No point of the front has {bounds}; it has {have or 'no points'}."
            )
        return min(pool, key=lambda t: t.values[quantity])

    def _check_stated(self, quantities: Iterable[str]) -> None:
        stated = {q for trial in self.trials for q in trial.values}
        if self.trials and (unstated := [q for q in quantities if q not in stated]):
            raise InvalidArgument(
                f"No point of the front is within that, because the points state no "
                f"{', '.join(unstated)}: search with a cost of it, or bound what they state "
                f"({', '.join(sorted(stated))})."
            )

    def hypervolume(self, reference_point: Sequence[float]) -> float:
        """Volume dominated by the front up to `reference_point`, in units of the objectives."""
        if not self.trials:
            return 0.0
        return hypervolume(self.points, np.asarray(reference_point, dtype=np.float64))
