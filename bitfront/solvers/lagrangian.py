"""Lagrangian relaxation of the multiple-choice knapsack, with a proven gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.solvers._multipliers import relaxed_many
from bitfront.solvers.base import Solution, Solver, Steps, steps_per_limit

Array = NDArray[np.float64]
Choice = NDArray[np.int64]


@dataclass(frozen=True)
class Lagrangian(Solver):
    """The choice that one price per byte gives, then the leftover budget spent on what fits.

    For a multiplier `m >= 0` each group on its own minimizes `loss + m * cost`; only formats on the
    lower convex hull of the group can win. All hull steps of all groups, sorted once by loss saved
    per cost, are the optimal choices of every `m` one after the other: the whole convex front. A
    limit is a place in that order. The step it cuts, taken in part, gives the optimum of the linear
    relaxation, hence `lower_bound`. The leftover goes to the best moves that still fit, and
    exchanges (one group down, another up) close what gap they can.

    Limits that must hold together get a multiplier each. One after the other is set to its best by
    the order above, the others' prices in the loss, then subgradient steps lift the bound; choices
    met on the way are brought within all limits and improved as before. Where that finds none,
    `cp_sat` says whether there is one.

    Needs: a loss table; any number of limits.

    Cost: `O(n log n)` in groups times formats for any number of budgets, plus `O(n)` a budget; some
    hundred times `O(n)` a budget of several limits.

    Prefer it by default, unless the last 0.01 % matters (`dynamic_programming`, or `cp_sat` with
    several limits).

    Source: Sinha and Zoltners, "The multiple-choice knapsack problem", Operations Research 1979;
    several multipliers: Fisher, "The Lagrangian relaxation method for solving integer programming
    problems", Management Science 1981.

    Args:
        n_exchanges: most exchanges tried after the leftover is spent.
        tolerance: relative gap at which exchanging stops.
        window: the leftover is spent on the groups of this many steps on each side of the cut.
    """

    n_exchanges: int = 32
    tolerance: float = 1e-6
    window: int = 1024

    def __post_init__(self) -> None:
        if self.n_exchanges < 0 or not 0 <= self.tolerance < 1 or self.window < 1:
            raise InvalidArgument(
                f"n_exchanges is {self.n_exchanges}, tolerance {self.tolerance}, window "
                f"{self.window}: give n_exchanges >= 0, 0 <= tolerance < 1, window >= 1."
            )

    def solve(self, problem: Problem) -> Solution:
        """Feasible choice with a proven lower bound.

        Raises:
            InfeasibleBudget: no choice meets all limits together.
        """
        return self.front(problem, [problem.limits])[0]

    def front(self, problem: Problem, limits: Sequence[Mapping[str, float]]) -> list[Solution]:
        """One solution per budget; the sort is shared by all limits on the same quantity."""
        single = [each for each in limits if len(each) < 2]
        shared = steps_per_limit(problem, single, "lagrangian", convex=True)
        solved = (self._at(*each) for each in shared)
        return [
            next(solved) if len(each) < 2 else self._within_all(problem.with_limits(each))
            for each in limits
        ]

    def _within_all(self, problem: Problem) -> Solution:
        found = relaxed_many(problem, self.n_exchanges, self.tolerance)
        choice = found.choice
        if choice is None:
            from bitfront.solvers.cp_sat import CpSat  # which starts from this file

            return CpSat().solve(problem)
        loss = problem.loss.total(choice)
        bound = min(found.bound, loss)
        return Solution(choice, loss, bound, optimal=loss <= found.bound)

    def _at(self, problem: Problem, costs: Array, limit: float, steps: Steps) -> Solution:
        n_taken, lower_bound = relaxed(steps, limit)
        choice = steps.choice(np.arange(n_taken))
        loss = problem.loss.total(choice)
        if n_taken == len(steps.group):
            return Solution(choice, loss, loss, optimal=True, multiplier=0.0)
        rows = np.unique(steps.group[max(n_taken - self.window, 0) : n_taken + self.window])
        spare = limit - float(costs[np.arange(len(choice)), choice].sum())
        moves = Moves(problem.group_loss[rows], costs[rows], choice[rows], spare)
        settled = loss - moves.total()
        moves.fill()
        for _ in range(self.n_exchanges):
            loss = settled + moves.total()
            if loss - lower_bound <= self.tolerance * abs(loss) or not moves.exchange():
                break
        choice[rows] = moves.choice
        loss = problem.loss.total(choice)
        bound, price = min(lower_bound, loss), float(steps.rate[n_taken])
        return Solution(choice, loss, bound, optimal=loss <= lower_bound, multiplier=price)


def relaxed(steps: Steps, limit: float) -> tuple[int, float]:
    """How many steps fit wholly within the limit, and the optimum of the linear relaxation."""
    spent = np.cumsum(steps.cost)
    spare = max(limit - steps.start_cost, 0.0)
    n_taken = int(np.searchsorted(spent, spare, side="right"))
    saved = float(steps.cost[:n_taken] @ steps.rate[:n_taken])
    if n_taken < len(spent):
        saved += float(steps.rate[n_taken] * (spare - (spent[n_taken - 1] if n_taken else 0.0)))
    return n_taken, steps.start_loss - saved


def open_formats(loss: Array, costs: Array, limit: float, incumbent: Solution) -> NDArray[np.bool_]:
    """Formats that a choice better than the incumbent can still use, `[n_groups, n_formats]`.

    A format is out when taking it lifts the Lagrangian bound at the incumbent's multiplier above
    the incumbent's loss; the incumbent's own formats stay.
    """
    price = incumbent.multiplier
    priced = loss + price * costs if price else loss
    least = priced.min(axis=1, keepdims=True)
    bound = least.sum() - (price * limit if price else 0.0)
    slack = incumbent.loss - bound + 1e-12 * np.abs(least).sum()
    kept: NDArray[np.bool_] = priced - least <= max(slack, 0.0)
    return kept


class Moves:
    """Changes of one or two groups that keep a choice within its limit.

    Args:
        loss: `[n_groups, n_formats]`, infinite where not allowed.
        costs: `[n_groups, n_formats]`.
        choice: feasible start, `[n_groups]`; changed in place.
        spare: what the choice leaves of the limit.
    """

    def __init__(self, loss: Array, costs: Array, choice: Choice, spare: float) -> None:
        self.loss, self.costs, self.choice, self.spare = loss, costs, choice, spare

    def total(self) -> float:
        """Loss of the choice."""
        return float(self.loss[np.arange(len(self.choice)), self.choice].sum())

    def _changes(self, rows: Choice) -> tuple[Array, Array]:
        """Cost and loss added by every format of the given rows."""
        current = self.choice[rows]
        cost, loss = self.costs[rows], self.loss[rows]
        at = np.arange(len(rows))
        return cost - cost[at, current][:, None], loss - loss[at, current][:, None]

    def fill(self) -> None:
        """Spend the leftover at the best rates that fit, best groups first, until nothing fits."""
        rows = np.arange(len(self.choice))
        while len(rows):
            dearer, added = self._changes(rows)
            fits = (dearer <= self.spare) & (added < 0)
            useful = fits.any(axis=1)
            rows, dearer, added, fits = rows[useful], dearer[useful], added[useful], fits[useful]
            rate = np.full(fits.shape, -np.inf)
            np.divide(-added, np.maximum(dearer, 1e-9), out=rate, where=fits)
            column = rate.argmax(axis=1)
            at = np.arange(len(rows))
            order = np.argsort(-rate[at, column], kind="stable")
            spent = np.cumsum(dearer[at, column][order])
            taken = order[: int(np.searchsorted(np.maximum.accumulate(spent), self.spare, "right"))]
            self.choice[rows[taken]] = column[taken]
            self.spare -= float(dearer[taken, column[taken]].sum())

    def exchange(self) -> bool:
        """Make one group cheaper, another dearer, the best such pair; False when none helps."""
        dearer, added = self._changes(np.arange(len(self.choice)))
        up_row, up_column = np.nonzero((dearer > 0) & (added < 0))
        down_row, down_column = np.nonzero((dearer < 0) & np.isfinite(added))
        if not len(up_row) or not len(down_row):
            return False
        order = np.argsort(dearer[up_row, up_column], kind="stable")
        up_row, up_column = up_row[order], up_column[order]
        up_cost, up_added = dearer[up_row, up_column], added[up_row, up_column]
        best_up = _running_argmin(up_added)
        room = self.spare - dearer[down_row, down_column]
        place = np.searchsorted(up_cost, room, side="right") - 1
        up = best_up[np.maximum(place, 0)]
        total = added[down_row, down_column] + up_added[up]
        total[(place < 0) | (up_row[up] == down_row)] = np.inf
        down = int(total.argmin())
        if not total[down] < 0:
            return False
        self.choice[down_row[down]] = down_column[down]
        self.choice[up_row[up[down]]] = up_column[up[down]]
        self.spare -= dearer[down_row[down], down_column[down]] + up_cost[up[down]]
        self.fill()
        return True


def _running_argmin(values: Array) -> Choice:
    """Index of the smallest value so far, at every place."""
    is_new = values <= np.minimum.accumulate(values)
    return np.maximum.accumulate(np.where(is_new, np.arange(len(values)), 0))
