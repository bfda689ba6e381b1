"""Solver: the best formats for a problem, numpy only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidArgument
from bitfront.problem import Problem


@dataclass(frozen=True, eq=False)
class Solution:
    """A feasible choice with what is known about how good it is.

    Args:
        choice: format index per group, int64 `[n_groups]`.
        loss: its sum of the loss table.
        lower_bound: no feasible choice has a smaller loss; minus infinity when unknown.
        optimal: whether `loss` is proven to be the smallest.
        multiplier: loss that one more unit of cost saves at the bound; NaN when unknown.
    """

    choice: NDArray[np.int64]
    loss: float
    lower_bound: float = -np.inf
    optimal: bool = False
    multiplier: float = np.nan

    @property
    def gap(self) -> float:
        """Relative distance of `loss` from `lower_bound`: 0 when optimal, infinite when unknown."""
        if self.optimal:
            return 0.0
        return float((self.loss - self.lower_bound) / max(abs(self.loss), 1e-300))


class Solver(ABC):
    """Solves multiple-choice knapsack problems. Subclasses are frozen dataclasses."""

    @abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """A feasible choice of small loss; it never breaks a limit.

        Raises:
            InfeasibleBudget: no choice meets the limits.
        """

    def front(self, problem: Problem, limits: Sequence[Mapping[str, float]]) -> list[Solution]:
        """One solution per set of limits; overridden where all budgets share work."""
        return [self.solve(problem.with_limits(each)) for each in limits]


def one_limit(problem: Problem, solver: str) -> tuple[NDArray[np.float64], float]:
    """Costs `[n_groups, n_formats]` and limit of a problem that has at most one.

    Without a limit every cost is 0. Costs that are no whole numbers leave a margin of 1e-12,
    so that the order of a sum cannot decide whether it is within the limit.

    Raises:
        InvalidArgument: several limits.
    """
    if len(problem.limits) > 1:
        raise InvalidArgument(
            f"Solver {solver!r} takes one limit, given {', '.join(problem.limits)}: "
            "use 'lagrangian' or 'cp_sat'."
        )
    if not problem.limits:
        return np.where(np.isfinite(problem.group_loss), 0.0, np.inf), np.inf
    costs, limit = problem.group_costs[0], float(problem.limit_values[0])
    return costs, limit if is_whole(costs) else limit - 1e-12 * abs(limit)


def is_whole(costs: NDArray[np.float64]) -> bool:
    """Whether every cost is a whole number (or infinite: not allowed)."""
    return bool((np.floor(costs) == costs).all())


def cheapest(costs: NDArray[np.float64], loss: NDArray[np.float64]) -> NDArray[np.int64]:
    """Column of the smallest cost of each group, of equal costs that of the smallest loss."""
    tied = costs == costs.min(axis=1, keepdims=True)
    columns: NDArray[np.int64] = np.where(tied, loss, np.inf).argmin(axis=1)
    return columns


@dataclass(frozen=True, eq=False)
class Steps:
    """The way of each group from its cheapest format to its best, cut into steps.

    A step replaces the format of one group by the next on its way: it costs more and saves loss.
    Steps are sorted by falling rate (loss saved per cost); those of a group keep their order.

    Args:
        way: format index after 0, 1, ... steps, `[n_groups, n_formats]`, ends repeated.
        group: which group each step belongs to, `[n_steps]`.
        cost: what each step costs, above 0, `[n_steps]`.
        rate: loss saved per cost, never rising, `[n_steps]`.
        start_cost: sum of the cheapest formats.
        start_loss: loss of the cheapest formats.
    """

    way: NDArray[np.int64]
    group: NDArray[np.int64]
    cost: NDArray[np.float64]
    rate: NDArray[np.float64]
    start_cost: float
    start_loss: float

    @classmethod
    def along(
        cls, way: NDArray[np.int64], loss: NDArray[np.float64], costs: NDArray[np.float64]
    ) -> Steps:
        """Steps of a way `[n_groups, n_formats]` over tables of the same shape."""
        way_loss = np.take_along_axis(loss, way, axis=1)
        way_cost = np.take_along_axis(costs, way, axis=1)
        cost, saved = np.diff(way_cost), -np.diff(way_loss)
        is_step = cost > 0
        rate = np.divide(saved, cost, out=np.zeros_like(cost), where=is_step)
        # a step behind a worse one waits for it: only then is the order one that can be walked
        rate = np.minimum.accumulate(np.where(is_step, rate, np.inf), axis=1)
        group, _ = np.nonzero(is_step)
        order = np.argsort(-rate[is_step], kind="stable")
        return cls(
            way,
            group[order],
            cost[is_step][order],
            rate[is_step][order],
            float(way_cost[:, 0].sum()),
            float(way_loss[:, 0].sum()),
        )

    def choice(self, taken: NDArray[np.int64]) -> NDArray[np.int64]:
        """Format index per group after taking the steps of the given indices."""
        n_taken = np.bincount(self.group[taken], minlength=len(self.way))
        return self.way[np.arange(len(self.way)), n_taken]


def way_down(
    loss: NDArray[np.float64], costs: NDArray[np.float64], convex: bool
) -> NDArray[np.int64]:
    """Formats worth taking in each group, cheapest first, `[n_groups, n_formats]`, ends repeated.

    Args:
        loss: `[n_groups, n_formats]`, infinite where not allowed.
        costs: `[n_groups, n_formats]`.
        convex: follow the lower convex hull (the steepest fall of loss per cost each time);
            otherwise the next dearer format that loses less.
    """
    rows = np.arange(len(loss))
    current = cheapest(costs, loss)
    way = [current]
    for _ in range(loss.shape[1] - 1):
        dearer = costs - costs[rows, current][:, None]
        saved = loss[rows, current][:, None] - loss
        better = (dearer > 0) & (saved > 0)
        score = np.full(loss.shape, -np.inf)
        if convex:
            np.divide(saved, dearer, out=score, where=better)
        else:
            score[better] = -dearer[better]
        best = score.max(axis=1, keepdims=True)
        following = np.where(better & (score == best), loss, np.inf).argmin(axis=1)
        current = np.where(better.any(axis=1), following, current)
        way.append(current)
    return np.stack(way, axis=1)


def steps_per_limit(
    problem: Problem, limits: Sequence[Mapping[str, float]], solver: str, convex: bool
) -> Iterator[tuple[Problem, NDArray[np.float64], float, Steps]]:
    """`(problem, costs, limit, steps)` for each limit; limits on one quantity share the sort.

    Raises:
        InvalidArgument: several limits at once.
    """
    shared: dict[tuple[str, ...], Steps] = {}
    for each in limits:
        limited = problem.with_limits(each)
        costs, limit = one_limit(limited, solver)
        if tuple(each) not in shared:
            way = way_down(limited.group_loss, costs, convex=convex)
            shared[tuple(each)] = Steps.along(way, limited.group_loss, costs)
        yield limited, costs, limit, shared[tuple(each)]
