"""Solver: the best formats for a problem, numpy only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.problem import Problem


@dataclass(frozen=True, eq=False)
class Solution:
    """A feasible choice with what is known about how good it is.

    Args:
        choice: format index per group, int64 `[n_groups]`.
        loss: its sum of the loss table.
        lower_bound: no feasible choice has a smaller loss; minus infinity when unknown.
        optimal: whether `loss` is proven to be the smallest.
    """

    choice: NDArray[np.int64]
    loss: float
    lower_bound: float = -np.inf
    optimal: bool = False

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
