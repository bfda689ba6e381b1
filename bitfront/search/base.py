"""Search: from what was measured so far to the allocations worth measuring next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.allocation import Allocation
from bitfront.errors import InfeasibleBudget
from bitfront.problem import Problem
from bitfront.solvers import SOLVERS
from bitfront.table import LayerTable
from bitfront.trial import Trial, TrialState

_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Screening:
    """A cheap look at some allocations before one of them is measured whole.

    Args:
        allocations: what is looked at.
        n_sequences: on how many of the first sequences, fewer than `Problem.n_sequences`.
    """

    allocations: tuple[Allocation, ...]
    n_sequences: int


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

    def slope_at(
        self,
        problem: Problem,
        history: Sequence[Trial],
    ) -> Allocation | None:
        """Where the search wants the slope of the loss measured before `ask`; `None` for nowhere.

        The next call gets it in `problem.slopes`.
        """
        return None

    def screen(
        self, problem: Problem, history: Sequence[Trial], rng: np.random.Generator
    ) -> Screening | None:
        """Which allocations the search wants measured on few sequences before `ask`; else `None`.

        Asked again, with the results in `problem.screened`, until it gives `None`. Every call of
        a step and the `ask` that follows get a generator in the same state, so that all of them
        can draw the same allocations.
        """
        return None


def learned_kl(trial: Trial) -> float:
    """The measured loss; NaN where it teaches nothing: the trial failed, or nothing was lost."""
    kl = trial.loss if trial.state is TrialState.COMPLETE else 0.0
    return kl if kl > 0 else float("nan")


def share_of_limits(problem: Problem, trial: Trial) -> float:
    """Cost of a trial as a share of the tightest limit; 1 where there is none."""
    choice = problem.space.encode(trial.allocation)
    shares = [problem.cost(q).total(choice) / limit for q, limit in problem.limits.items()]
    return max(shares, default=1.0)


def sides(problem: Problem, history: Sequence[Trial]) -> tuple[int, int]:
    """How many earlier proposals were above the budget and how many within it."""
    proposals = [trial for trial in history if trial.origin != "uniform"]
    within = [problem.is_feasible(problem.space.encode(t.allocation)) for t in proposals]
    return len(within) - sum(within), sum(within)


def per_group(problem: Problem, values: NDArray[np.float64]) -> LayerTable:
    """A loss table whose sums over groups are `values [n_groups, n_formats]`."""
    space = problem.space
    shares = np.where(space.group_allowed, values, 0.0) / np.bincount(space.group_of)[:, None]
    return LayerTable(space, shares[space.group_of], problem.loss.quantity, "search")


def beside(problem: Problem, spread: float, index: int) -> Problem:
    """The problem at other limits within `spread` of its own; itself when they cannot be met.

    All limits change by one factor. Multiples of the golden ratio modulo 1 cover the range evenly
    however many are asked for.
    """
    factor = 1 + spread * (2 * (index * _GOLDEN % 1) - 1)
    limits = {q: float(np.floor(limit * factor)) for q, limit in problem.limits.items()}
    try:
        other = problem.with_limits(limits)
        # Each limit can be met. All can together where they are no less than the problem's own, or
        # where what is least in one is within the others; else only a solver tells.
        cheapest = other.group_costs.argmin(axis=2)
        if factor < 1 and len(limits) > 1 and not any(map(other.is_feasible, cheapest)):
            SOLVERS.build("lagrangian").solve(other)
    except InfeasibleBudget:
        return problem
    return other


def targets(
    problem: Problem, spread: float, n_above: int, n_within: int, every: int = 2
) -> list[Problem]:
    """Where the next proposal is sought: at the budget, now and then at another limit before it.

    Args:
        problem: as in `Search.ask`.
        spread: how far other limits go, as a fraction of the budget; 0 for no others.
        n_above: proposals above the budget so far; others wait until they are fewer.
        n_within: proposals within it.
        every: one proposal in so many is sought at another limit.
    """
    index = n_above + n_within
    if spread > 0 and index % every == every - 1 and n_above < n_within:
        return [beside(problem, spread, index // every), problem]
    return [problem]
