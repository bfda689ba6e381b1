"""From ranked candidates to proposals: what is new, at the budget and below it, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.allocation import Allocation
from bitfront.problem import Problem
from bitfront.search._genetic import Ladder, fill_of
from bitfront.search._record import key_of, last_resort, unseen
from bitfront.search.base import learned_kl, n_proposed, targets
from bitfront.search.sweep import Sweep
from bitfront.trial import Trial

Floats = NDArray[np.float64]
Choices = NDArray[np.integer[Any]]

NEAR = 1.5
"""Costs within this factor of the budget are around it."""


@dataclass(frozen=True, eq=False)
class Past:
    """A history in arrays: each allocation is read once, which matters for 45,000 layers.

    Args:
        choices: of every trial, failed ones too, `[n_trials, n_groups]`.
        spent: costs that have a limit, in the order of the limits, `[n_limits, n_trials]`.
        log_kl: of the trials that can be learned from, NaN for the others, `[n_trials]`.
        n_proposed: how many of them were proposed.
    """

    choices: Choices
    spent: Floats
    log_kl: Floats
    n_proposed: int

    @classmethod
    def of(cls, problem: Problem, history: Sequence[Trial], asked: Sequence[Allocation]) -> Past:
        """Arrays of a history, and of what was asked since."""
        allocations = [*(trial.allocation for trial in history), *asked]
        choices = np.empty((len(allocations), len(problem.space.groups)), dtype=np.int16)
        for row, allocation in enumerate(allocations):
            choices[row] = problem.space.encode(allocation)
        spent = Ladder.of(problem).spent(choices)
        kl = np.full(len(allocations), np.nan)
        kl[: len(history)] = [learned_kl(trial) for trial in history]
        return cls(choices, spent, np.log(kl), n_proposed(history) + len(asked))

    def measured(self) -> tuple[Choices, Floats, Floats]:
        """Choices, costs and log kl of the trials that can be learned from, oldest first."""
        usable = np.isfinite(self.log_kl)
        return self.choices[usable], self.spent[:, usable], self.log_kl[usable]

    def near(self, problem: Problem) -> tuple[Choices, Floats]:
        """Choices and log kl around the budget; uniform baselines far from it teach little."""
        choices, spent, log_kl = self.measured()
        fill = fill_of(spent, problem.limit_values)
        kept = (fill == 0) | ((fill > 1 / NEAR) & (fill < NEAR))
        return choices[kept], log_kl[kept]


def picked(
    problem: Problem,
    past: Past,
    n: int,
    solver: str,
    spread: float,
    ranked: Callable[[Problem], Choices],
) -> list[Allocation]:
    """At most `n` new allocations, every second one at a smaller limit than the budget.

    Args:
        problem: as in `Search.ask`.
        past: of the history.
        n: how many are wanted.
        solver: name of the solver of the front that is swept when the candidates are used up,
            before whatever is left of a small space.
        spread: how far every second one goes below the budget, as a fraction of it.
        ranked: candidates within the limits of a problem, the most promising first.
    """
    seen = set(map(key_of, past.choices))
    asked: list[Allocation] = []
    for index in range(past.n_proposed, past.n_proposed + n):
        sought = targets(problem, spread, index)
        candidates = (c for target in sought for c in ranked(target))
        found = next(unseen(candidates, seen), None)
        if found is None:
            break
        asked.append(problem.space.decode(found))
    if len(asked) < n:
        left = unseen(last_resort(problem, Sweep(solver, spread or 0.01)), seen)
        asked += map(problem.space.decode, islice(left, n - len(asked)))
    return asked
