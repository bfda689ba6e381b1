"""One format everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InfeasibleBudget
from bitfront.problem import Problem
from bitfront.solvers.base import Solution, Solver, cheapest


@dataclass(frozen=True)
class Uniform(Solver):
    """The best single format for every layer: the baseline that any allocation has to beat.

    Layers that the format does not fit take the next larger one that does. Where no single format
    meets the limits, each layer takes its smallest.

    Needs: no loss table; any number of limits.

    Cost: one sum per format.

    Prefer it only as the baseline that any allocation has to beat.

    Source: no paper; what is done without an allocation.
    """

    def solve(self, problem: Problem) -> Solution:
        """The feasible uniform choice of least loss.

        Raises:
            InfeasibleBudget: neither a uniform choice nor the smallest one meets every limit.
        """
        columns = range(len(problem.space.formats))
        choice = _best(problem, [problem.space.uniform(column) for column in columns])
        if choice is None:
            loss = problem.group_loss
            choice = _best(problem, [cheapest(costs, loss) for costs in problem.group_costs])
        if choice is None:
            quantity, limit = next(iter(problem.limits.items()))
            smallest = min(problem.cost(quantity).total(problem.space.uniform(c)) for c in columns)
            raise InfeasibleBudget(quantity, limit, smallest)
        return Solution(choice, problem.loss.total(choice))


def _best(problem: Problem, choices: list[NDArray[np.int64]]) -> NDArray[np.int64] | None:
    feasible = [choice for choice in choices if problem.is_feasible(choice)]
    return min(feasible, key=problem.loss.total, default=None)
