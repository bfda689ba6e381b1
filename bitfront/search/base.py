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
        """At most `n` new allocations, each within the budget and none measured before.

        Args:
            problem: the estimated loss, the costs and the budget, whose limits every proposal
                meets. Some may cost less, to find the front below the budget.
            history: finished trials on the calibration text, baselines included, oldest first.
            n: how many are wanted; fewer come back when the search finds nothing new.
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


def n_proposed(history: Sequence[Trial]) -> int:
    """How many trials of a history a search proposed; uniform baselines are measured anyway."""
    return sum(trial.origin != "uniform" for trial in history)


def per_group(problem: Problem, values: NDArray[np.float64]) -> LayerTable:
    """A loss table whose sums over groups are `values [n_groups, n_formats]`."""
    space = problem.space
    shares = np.where(space.group_allowed, values, 0.0) / np.bincount(space.group_of)[:, None]
    return LayerTable(space, shares[space.group_of], problem.loss.quantity, "search")


def below(problem: Problem, spread: float, index: int) -> Problem:
    """The problem at smaller limits, down to `1 - spread` times its own; itself if they are unmet.

    All limits change by one factor. Multiples of the golden ratio modulo 1 cover the range evenly
    however many are asked for.
    """
    factor = 1 - spread * ((index + 1) * _GOLDEN % 1)
    limits = {q: float(np.floor(limit * factor)) for q, limit in problem.limits.items()}
    try:
        other = problem.with_limits(limits)
        # Each limit can be met. All can together where what is least in one is within the others;
        # else only a solver tells.
        cheapest = other.group_costs.argmin(axis=2)
        if len(limits) > 1 and not any(map(other.is_feasible, cheapest)):
            SOLVERS.build("lagrangian").solve(other)
    except InfeasibleBudget:
        return problem
    return other


def targets(problem: Problem, spread: float, index: int, every: int = 2) -> list[Problem]:
    """Where a proposal is sought: at the budget; now and then at a smaller limit before it.

    Args:
        problem: as in `Search.ask`.
        spread: how far smaller limits go, as a fraction of the budget; 0 for none.
        index: how many were proposed before it.
        every: one proposal in so many is sought at a smaller limit.
    """
    smaller = problem
    if spread > 0 and index % every == every - 1:
        smaller = below(problem, spread, index // every)
    return [problem] if smaller is problem else [smaller, problem]
