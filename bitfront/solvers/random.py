"""Random feasible choices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.solvers.base import Solution, Solver, cheapest, one_limit


@dataclass(frozen=True)
class Random(Solver):
    """Random formats within the limit: the baseline that says what choosing is worth at all.

    Starts from the cheapest formats; in each round the groups, in random order, are offered a
    random dearer format and take it while the budget lasts, so the sum ends near the limit.

    Cost: a few passes over the groups; one limit.

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
        """A feasible choice near the limit.

        Raises:
            InvalidArgument: several limits.
        """
        costs, limit = one_limit(problem, "random")
        rng = np.random.default_rng(self.seed)
        choice = cheapest(costs, problem.group_loss)
        allowed = np.isfinite(problem.group_loss)
        rows = np.arange(len(choice))
        spare = limit - float(costs[rows, choice].sum())
        for _ in range(self.n_rounds):
            # the largest of independent uniforms is a uniform pick among the allowed formats
            offer = np.where(allowed, rng.random(allowed.shape), -1.0).argmax(axis=1)
            dearer = costs[rows, offer] - costs[rows, choice]
            order = rng.permutation(np.flatnonzero((dearer >= 0) & (dearer <= spare)))
            taken = order[np.cumsum(dearer[order]) <= spare]
            choice[taken] = offer[taken]
            spare -= float(dearer[taken].sum())
        return Solution(choice, problem.loss.total(choice))
