"""Exact dynamic programme over the formats that bounds leave open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.solvers.base import Solution, Solver, is_whole, one_limit
from bitfront.solvers.lagrangian import Lagrangian, open_formats

Array = NDArray[np.float64]
Choice = NDArray[np.int64]


@dataclass(frozen=True)
class DynamicProgramming(Solver):
    """The optimum for one limit, by the smallest loss for every budget, group after group.

        best[g, b] = min over f of best[g - 1, b - cost[g, f]] + loss[g, f]

    The table runs over costs divided by their greatest common divisor. `lagrangian` comes first:
    formats whose Lagrangian bound exceeds its loss are out, which leaves a core of some groups, so
    a table over all groups and all budgets is never built. Where the core has more than `max_bins`
    budgets (thousands of layers whose sizes share no large divisor), costs are rounded up to bins:
    the choice stays feasible and is never worse than that of `lagrangian`, `optimal` is false and
    `lower_bound` is the Lagrangian one. With fewer than 100 bins a core group that is hopeless, and
    the answer is that of `lagrangian`.

    Needs: a loss table and one limit.

    Cost: core groups times formats times bins a limit.

    Prefer it to `lagrangian` when the last 0.1 % matters, to `cp_sat` when there is one limit.

    Source: Dudzinski and Walukiewicz, "Exact methods for the knapsack problem", EJOR 1987.

    Args:
        max_bins: most budgets the table distinguishes.
        max_cells: most entries of the table of choices, one byte each.
    """

    max_bins: int = 200_000
    max_cells: int = 500_000_000

    def __post_init__(self) -> None:
        if self.max_bins < 1 or self.max_cells < 1:
            raise InvalidArgument(
                f"max_bins is {self.max_bins}, max_cells {self.max_cells}: give at least 1 each."
            )

    def solve(self, problem: Problem) -> Solution:
        """The optimum, or a feasible choice with a bound where bins are too few.

        Raises:
            InvalidArgument: several limits.
        """
        return self.front(problem, [problem.limits])[0]

    def front(self, problem: Problem, limits: Sequence[Mapping[str, float]]) -> list[Solution]:
        """One solution per limit; the Lagrangian front is shared."""
        relaxed = Lagrangian().front(problem, limits)
        return [
            self._improved(problem.with_limits(each), solution)
            for each, solution in zip(limits, relaxed, strict=True)
        ]

    def _improved(self, problem: Problem, incumbent: Solution) -> Solution:
        if incumbent.optimal:
            return incumbent
        costs, limit = one_limit(problem, "dynamic_programming")
        kept = open_formats(problem.group_loss, costs, limit, incumbent)
        rows = np.flatnonzero(kept.sum(axis=1) > 1)
        choice = incumbent.choice.copy()
        fixed = np.delete(np.arange(len(choice)), rows)
        choice[fixed] = kept[fixed].argmax(axis=1)
        spare = limit - float(costs[fixed, choice[fixed]].sum())
        core_costs = np.where(kept[rows], costs[rows], np.inf)
        core_loss = np.where(kept[rows], problem.group_loss[rows], np.inf)
        weights, n_bins, exact = self._binned(core_costs, spare)
        if not exact and n_bins < 100 * len(rows):
            return incumbent  # rounding up costs half a bin a group: more than there is to gain
        choice[rows] = _cheapest_path(core_loss, weights, n_bins)
        loss = problem.loss.total(choice)
        if not problem.is_feasible(choice) or loss > incumbent.loss:
            choice, loss = incumbent.choice, incumbent.loss
        bound = loss if exact else incumbent.lower_bound
        return Solution(choice, loss, bound, optimal=exact)

    def _binned(self, costs: Array, spare: float) -> tuple[Choice, int, bool]:
        """Costs above each group's smallest in whole bins, the number of bins, and whether exact.

        Formats that are out (infinite cost) get one bin more than there are.
        """
        above = costs - costs.min(axis=1, keepdims=True)
        spare -= float(costs.min(axis=1).sum())
        finite = above[np.isfinite(above)]
        spare = max(
            min(spare, float(np.where(np.isfinite(above), above, 0).max(axis=1).sum())), 0.0
        )
        most = max(min(self.max_bins, self.max_cells // max(len(costs), 1)), 1)
        exact = is_whole(above)
        width = float(np.gcd.reduce(finite.astype(np.int64))) if exact else spare / most
        if not width:
            return np.where(np.isfinite(above), 0, 1), 0, True
        if spare / width > most:
            width, exact = spare / most, False
        n_bins = int(spare / width + 1e-9)
        bins = np.ceil(np.where(np.isfinite(above), above, 0) / width - 1e-9)
        return np.where(np.isfinite(above), bins, n_bins + 1).astype(np.int64), n_bins, exact


def _cheapest_path(loss: Array, weights: Choice, n_bins: int) -> Choice:
    """Columns of least loss with weights that sum to at most `n_bins`, `[n_groups]` each."""
    best = np.zeros(n_bins + 1)
    columns = np.zeros((len(loss), n_bins + 1), dtype=np.min_scalar_type(loss.shape[1]))
    for group, (losses, steps) in enumerate(zip(loss, weights, strict=True)):
        following = np.full(n_bins + 1, np.inf)
        for column in np.flatnonzero((steps <= n_bins) & np.isfinite(losses)):
            candidate = best[: n_bins + 1 - steps[column]] + losses[column]
            target = following[steps[column] :]
            better = candidate < target
            target[better] = candidate[better]
            columns[group, steps[column] :][better] = column
        best = following
    path = np.empty(len(loss), dtype=np.int64)
    room = n_bins
    for group in reversed(range(len(loss))):
        path[group] = columns[group, room]
        room -= int(weights[group, path[group]])
    return path
