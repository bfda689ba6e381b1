"""Every choice there is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from bitfront.errors import InfeasibleBudget, InvalidArgument
from bitfront.problem import Problem
from bitfront.solvers.base import Solution, Solver


@dataclass(frozen=True)
class Exhaustive(Solver):
    """The best of all feasible choices: the truth on small problems, for any number of limits.

    Needs: a loss table; any number of limits.

    Cost: formats to the power of groups; refused above `max_choices`.

    Prefer it on small problems, as the truth that other solvers are compared with.

    Source: no paper; plain enumeration.

    Args:
        max_choices: most choices that are tried.
    """

    max_choices: int = 2_000_000

    def __post_init__(self) -> None:
        if self.max_choices < 1:
            raise InvalidArgument(f"max_choices is {self.max_choices}: give at least 1.")

    def solve(self, problem: Problem) -> Solution:
        """The optimum.

        Raises:
            InvalidArgument: more than `max_choices` choices.
            InfeasibleBudget: no choice meets all limits together.
        """
        menus = [np.flatnonzero(allowed) for allowed in problem.space.group_allowed]
        n_choices = prod(len(menu) for menu in menus)
        if n_choices > self.max_choices:
            raise InvalidArgument(
                f"{n_choices:.2e} choices are more than exhaustive's max_choices of "
                f"{self.max_choices}: use 'dynamic_programming' or 'cp_sat'."
            )
        choices = np.array(list(product(*menus)), dtype=np.int64)  # [n_choices, n_groups]
        rows = np.arange(len(menus))
        costs = problem.group_costs[:, rows, choices].sum(axis=-1)  # [n_limits, n_choices]
        within = costs <= problem.limit_values[:, None]
        feasible = within.all(axis=0)
        if not feasible.any():
            smallest = np.where(within[1:].all(axis=0), costs[0], np.inf).min()
            raise InfeasibleBudget(next(iter(problem.limits)), problem.limit_values[0], smallest)
        losses = np.where(feasible, problem.group_loss[rows, choices].sum(axis=1), np.inf)
        best = choices[losses.argmin()]
        loss = problem.loss.total(best)
        return Solution(best, loss, loss, optimal=True)
