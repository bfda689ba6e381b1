"""One step at a time, the best loss saved per cost first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.problem import Problem
from bitfront.solvers.base import Solution, Solver, Steps, steps_per_limit


@dataclass(frozen=True)
class Greedy(Solver):
    """Raises groups from their cheapest format, one menu step at a time, the best rate first.

    A step leads to the next dearer format that loses less. One that does not fit closes its group
    and the others go on (stopping at the first misfit is a known fault). A format hidden behind a
    poor step is found late.

    Needs: a loss table and one limit.

    Cost: one sort of all steps.

    Prefer it only as the usual heuristic to compare with: `lagrangian` avoids its fault at the same
    cost.

    Source: MPTQ-ViT, section 3.3; NNCF.
    """

    def solve(self, problem: Problem) -> Solution:
        """Feasible choice without a bound.

        Raises:
            InvalidArgument: several limits.
        """
        return self.front(problem, [problem.limits])[0]

    def front(self, problem: Problem, limits: Sequence[Mapping[str, float]]) -> list[Solution]:
        """One solution per limit; the sort is shared by all limits on the same quantity."""
        solutions = []
        for _, _, limit, steps in steps_per_limit(problem, limits, "greedy", convex=False):
            choice = steps.choice(_affordable(steps, limit - steps.start_cost))
            solutions.append(Solution(choice, problem.loss.total(choice)))
        return solutions


def _affordable(steps: Steps, spare: float) -> NDArray[np.int64]:
    """Indices of the steps taken in order; a step that does not fit closes its group."""
    taken = [np.empty(0, dtype=np.int64)]
    waiting = np.arange(len(steps.group))
    while len(waiting):
        misfits = waiting[steps.cost[waiting] > spare][::-1]
        closed_from = np.full(len(steps.way), len(steps.group))
        closed_from[steps.group[misfits]] = (
            misfits  # the earliest misfit of a group is written last
        )
        waiting = waiting[waiting < closed_from[steps.group[waiting]]]
        spent = np.cumsum(steps.cost[waiting])
        n_fit = int(np.searchsorted(spent, spare, side="right"))
        taken.append(waiting[:n_fit])
        spare -= float(spent[n_fit - 1]) if n_fit else 0.0
        waiting = waiting[n_fit:]
    return np.concatenate(taken)
