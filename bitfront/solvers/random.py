"""Random feasible choices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.solvers.base import Solution, Solver, cheapest, one_limit
from bitfront.solvers.lagrangian import Lagrangian

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Random(Solver):
    """Random formats within the limit: the baseline that says what choosing is worth at all.

    Starts from the cheapest formats; in each round the groups, in random order, are offered a
    random dearer format and take it while the budget lasts, so the sum ends near the limit. With
    several limits it starts from the choice that takes the smallest part of them, if that meets
    all, else from that of `lagrangian`, and a format that costs more of any limit is dearer.

    Needs: no loss table; any number of limits.

    Cost: a few passes over the groups.

    Prefer it only as the baseline that says what choosing is worth at all.

    Source: ours.

    Args:
        seed: the same seed gives the same choice for the same problem.
        n_rounds: how often every group is offered a format.
    """

    seed: int = 0
    n_rounds: int = 16

    def __post_init__(self) -> None:
        if self.seed < 0 or self.n_rounds < 1:
            raise InvalidArgument(
                f"seed is {self.seed}, n_rounds {self.n_rounds}: give seed >= 0, n_rounds >= 1."
            )

    def solve(self, problem: Problem) -> Solution:
        """A feasible choice near the limits.

        Raises:
            InfeasibleBudget: no choice meets all limits together.
        """
        rng = np.random.default_rng(self.seed)
        costs, limits = _costs(problem)
        choice = self._start(problem, costs, limits)
        allowed = np.isfinite(problem.group_loss)
        rows = np.arange(len(choice))
        spare = limits - costs[:, rows, choice].sum(axis=1)
        for _ in range(self.n_rounds):
            # the largest of independent uniforms is a uniform pick among the allowed formats
            offer = np.where(allowed, rng.random(allowed.shape), -1.0).argmax(axis=1)
            dearer = costs[:, rows, offer] - costs[:, rows, choice]
            fits = (dearer >= 0).any(axis=0) & (dearer <= spare[:, None]).all(axis=0)
            order = rng.permutation(np.flatnonzero(fits))
            within = (np.cumsum(dearer[:, order], axis=1) <= spare[:, None]).all(axis=0)
            taken = order[: len(order) if within.all() else int(within.argmin())]
            choice[taken] = offer[taken]
            spare -= dearer[:, taken].sum(axis=1)
        return Solution(choice, problem.loss.total(choice))

    def _start(self, problem: Problem, costs: Array, limits: Array) -> NDArray[np.int64]:
        if len(costs) == 1:
            return cheapest(costs[0], problem.group_loss)
        share = (costs / np.maximum(np.abs(limits), 1e-300)[:, None, None]).sum(axis=0)
        choice = cheapest(share, problem.group_loss)
        return choice if problem.is_feasible(choice) else Lagrangian().solve(problem).choice


def _costs(problem: Problem) -> tuple[Array, Array]:
    """Costs `[n_limits, n_groups, n_formats]` and limits; one of nothing where there is none."""
    if len(problem.limits) > 1:
        return problem.group_costs, problem.limit_values
    costs, limit = one_limit(problem, "random")
    return costs[None], np.array([limit])
