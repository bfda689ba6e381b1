"""A multiple-choice knapsack as a constraint program."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Program:
    """One variable per open (group, format), one format per group."""

    def __init__(self, kept: Mask) -> None:
        self.model = cp_model.CpModel()
        self.rows, self.columns = np.nonzero(kept)
        self.variables = [self.model.new_bool_var("") for _ in self.rows]
        starts = np.flatnonzero(np.diff(self.rows, prepend=-1))
        for first, last in zip(starts, [*starts[1:], len(self.rows)], strict=True):
            self.model.add_exactly_one(self.variables[first:last])

    def of_group(self, group: int) -> dict[int, cp_model.IntVar]:
        """Variables of the open formats of a group, by format index."""
        places = np.flatnonzero(self.rows == group)
        return {int(self.columns[place]): self.variables[place] for place in places}

    def sum(self, weights: NDArray[np.int64]) -> cp_model.LinearExpr:
        """Sum of a table `[n_groups, n_formats]` at the chosen formats."""
        return cp_model.LinearExpr.weighted_sum(self.variables, weights[self.rows, self.columns])

    def add_limit(self, costs: Array, limit: float) -> None:
        """Keep the sum of costs within a limit, both divided by the costs' common divisor."""
        least = costs[self.rows, self.columns].min()
        whole = np.where(np.isfinite(costs), costs - least, 0.0).astype(np.int64)
        spare = limit - least * (self.rows[-1] + 1)
        divisor = max(int(np.gcd.reduce(whole[self.rows, self.columns])), 1)
        most = int(whole.max(axis=1).sum()) // divisor
        spare = int(min(spare // divisor, most))
        self.model.add(self.sum(whole // divisor) <= spare)

    def hint(self, choice: NDArray[np.int64]) -> None:
        """Where the search begins."""
        for variable, chosen in zip(self.variables, self.columns == choice[self.rows], strict=True):
            self.model.add_hint(variable, bool(chosen))

    def choice(self, solver: cp_model.CpSolver) -> NDArray[np.int64]:
        """Chosen column per group."""
        is_chosen = np.array([solver.boolean_value(v) for v in self.variables])
        columns: NDArray[np.int64] = self.columns[is_chosen].astype(np.int64)
        return columns
