"""Search: from what was measured so far to the allocations worth measuring next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from bitfront.allocation import Allocation
from bitfront.problem import Problem
from bitfront.trial import Trial


class Search(ABC):
    """Proposes allocations. Stateless: same problem, history and generator state, same answer.

    Subclasses are frozen dataclasses of hyperparameters.
    """

    @abstractmethod
    def ask(
        self, problem: Problem, history: Sequence[Trial], n: int, rng: np.random.Generator
    ) -> list[Allocation]:
        """At most `n` new allocations, each within its limit and none measured before.

        Args:
            problem: the estimated loss, the costs and the budget. Proposals may spread over
                smaller and larger costs to find the front around the budget, but at least one
                in two meets the budget's limits, counted over this answer and the proposals
                in the history together.
            history: finished trials on the calibration text, baselines included, oldest first.
            n: how many are wanted; fewer come back when the space is exhausted.
            rng: the only source of randomness.
        """


def sides(problem: Problem, history: Sequence[Trial]) -> tuple[int, int]:
    """How many earlier proposals were above the budget and how many within it."""
    proposals = [trial for trial in history if trial.origin != "uniform"]
    within = [problem.is_feasible(problem.space.encode(t.allocation)) for t in proposals]
    return len(within) - sum(within), sum(within)
