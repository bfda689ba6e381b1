"""What a search has proposed so far, by choice rather than by allocation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bitfront.allocation import Allocation
from bitfront.problem import Problem
from bitfront.search.base import targets
from bitfront.search.sweep import Sweep
from bitfront.trial import Trial

Choice = NDArray[np.int64]

_MAX_CHOICES = 4096
"""Spaces up to this size are listed before they count as exhausted."""


def key_of(choice: NDArray[np.signedinteger]) -> bytes:
    """Of a choice `[n_groups]` in a set or dictionary; faster than an allocation's digest."""
    return choice.astype(np.int16).tobytes()


class Record:
    """Choices of a history, which of them are new, and on which side of the budget the next goes.

    Args:
        problem: as in `Search.ask`.
        history: as in `Search.ask`.
        asked: what this answer already proposes.
    """

    def __init__(
        self, problem: Problem, history: Sequence[Trial], asked: Sequence[Allocation] = ()
    ) -> None:
        self.problem = problem
        self.n_above = self.n_within = 0
        self.choices = [problem.space.encode(t.allocation).astype(np.int16) for t in history]
        self._seen = set(map(key_of, self.choices))
        for trial, choice in zip(history, self.choices, strict=True):
            if trial.origin != "uniform":
                self._count(choice)
        for allocation in asked:
            self.add(problem.space.encode(allocation))

    @property
    def n_proposed(self) -> int:
        """Proposals so far."""
        return self.n_above + self.n_within

    def is_new(self, choice: Choice) -> bool:
        """Whether a choice was neither measured nor proposed."""
        return key_of(choice) not in self._seen

    def add(self, choice: Choice) -> None:
        """Note a proposal."""
        self._seen.add(key_of(choice))
        self._count(choice)

    def _count(self, choice: NDArray[np.signedinteger]) -> None:
        above = not self.problem.is_feasible(choice.astype(np.int64))
        self.n_above, self.n_within = self.n_above + above, self.n_within + (not above)

    def targets(self, spread: float, every: int = 2) -> list[Problem]:
        """Where the next proposal is sought: once in `every` at another limit near the budget."""
        return targets(self.problem, spread, self.n_above, self.n_within, every)

    def last_resort(
        self, history: Sequence[Trial], n: int, sweep: Sweep, rng: np.random.Generator
    ) -> list[Allocation]:
        """At most `n` where a search finds nothing new: the solver's front, then whatever is left.

        Args:
            history: as in `Search.ask`.
            n: how many are wanted.
            sweep: the front.
            rng: as in `Search.ask`.
        """
        space = self.problem.space
        n_asked = self.n_proposed - sum(trial.origin != "uniform" for trial in history)
        swept = sweep.ask(self.problem, history, n + n_asked, rng)
        return self.taken((*map(space.encode, swept), *self._all(sweep.spread)), n)

    def taken(self, choices: Iterable[Choice], n: int) -> list[Allocation]:
        """The first `n >= 1` new ones, noted; above the budget only while fewer are than within."""
        found: list[Allocation] = []
        for choice in choices:
            above = not self.problem.is_feasible(choice)
            if self.is_new(choice) and not (above and self.n_above >= self.n_within):
                self.add(choice)
                found.append(self.problem.space.decode(choice))
                if len(found) == n:
                    break
        return found

    def _all(self, spread: float) -> Iterator[Choice]:
        """Every choice of a small space within the limits that come next."""
        columns = [np.flatnonzero(row) for row in self.problem.space.group_allowed]
        if sum(math.log(len(each)) for each in columns) > math.log(_MAX_CHOICES):
            return
        targets = self.targets(spread)
        for each in product(*columns):
            choice = np.array(each, dtype=np.int64)
            if any(target.is_feasible(choice) for target in targets):
                yield choice
