"""Random allocations near the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.search.base import Search
from bitfront.solvers.random import Random as RandomSolver
from bitfront.trial import Trial


@dataclass(frozen=True)
class Random(Search):
    """Random feasible allocations that use most of the budget: what guided searches must beat.

    Each is a draw of the `random` solver at the budget; draws already measured are thrown away.

    Needs: nothing.

    Cost: a few passes over the groups a draw.

    Prefer it only as the baseline that guided searches must beat.

    Source: ours.

    Args:
        n_attempts: draws per wanted allocation before the space counts as exhausted.
    """

    n_attempts: int = 64

    def __post_init__(self) -> None:
        if self.n_attempts < 1:
            raise InvalidArgument(f"n_attempts is {self.n_attempts}: give at least 1.")

    def ask(
        self, problem: Problem, history: Sequence[Trial], n: int, rng: np.random.Generator
    ) -> list[Allocation]:
        """New random allocations, all within the limits."""
        seen = {trial.allocation for trial in history}
        asked: list[Allocation] = []
        for _ in range(n * self.n_attempts):
            if len(asked) == n:
                break
            seed = int(rng.integers(2**31))
            allocation = problem.space.decode(RandomSolver(seed).solve(problem).choice)
            if allocation not in seen:
                seen.add(allocation)
                asked.append(allocation)
        return asked
