"""One step at a time, the best loss saved per cost first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.problem import Problem
from bitfront.solvers.base import Solution, Solver, Steps, one_limit, way_down


@dataclass(frozen=True)
class Greedy(Solver):
    """Raises groups from their cheapest format, one menu step at a time, the best rate first.

    A step leads to the next dearer format that loses less. One that does not fit closes its group
    and the others go on (stopping at the first misfit is a known fault). This is the usual
    heuristic (MPTQ-ViT, section 3.3; NNCF); a format hidden behind a poor step is found late, which
    `lagrangian` avoids at the same cost. Cost: one sort of all steps; one limit.
    """

    def solve(self, problem: Problem) -> Solution:
        """Feasible choice without a bound.

        Raises:
            InvalidArgument: several limits.
        """
        costs, limit = one_limit(problem, "greedy")
        loss = problem.group_loss
        steps = Steps.along(way_down(loss, costs, convex=False), loss, costs)
        choice = steps.choice(_affordable(steps, limit - steps.start_cost))
        return Solution(choice, problem.loss.total(choice))


def _affordable(steps: Steps, spare: float) -> NDArray[np.int64]:
    """Indices of the steps taken in order; a step that does not fit closes its group."""
    taken = [np.empty(0, dtype=np.int64)]
    waiting = np.arange(len(steps.group))
    closed = np.zeros(len(steps.way), dtype=bool)
    while len(waiting):
        spent = np.cumsum(steps.cost[waiting])
        n_fit = int(np.searchsorted(spent, spare, side="right"))
        taken.append(waiting[:n_fit])
        spare -= float(spent[n_fit - 1]) if n_fit else 0.0
        closed[steps.group[waiting[n_fit : n_fit + 1]]] = True
        waiting = waiting[n_fit + 1 :]
        waiting = waiting[~closed[steps.group[waiting]]]
    return np.concatenate(taken)
