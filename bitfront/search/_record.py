"""What a search has proposed so far, by choice rather than by allocation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray

from bitfront.allocation import Allocation
from bitfront.problem import Problem
from bitfront.search.base import n_proposed, targets
from bitfront.search.sweep import Sweep
from bitfront.trial import Trial

Choice = NDArray[np.int64]

_MAX_CHOICES = 4096
"""Spaces up to this size are listed before they count as exhausted."""


def key_of(choice: NDArray[np.signedinteger]) -> bytes:
    """Of a choice `[n_groups]` in a set or dictionary; faster than an allocation's digest."""
    return choice.astype(np.int16).tobytes()


class Record:
    """Choices of a history, which of them are new, and at which limit the next is sought.

    Args:
        problem: as in `Search.ask`.
        history: as in `Search.ask`.
        asked: what this answer already proposes.
    """

    def __init__(
        self, problem: Problem, history: Sequence[Trial], asked: Sequence[Allocation] = ()
    ) -> None:
        self.problem = problem
        self.n_proposed = n_proposed(history)
        self.choices = [problem.space.encode(t.allocation).astype(np.int16) for t in history]
        self._seen = set(map(key_of, self.choices))
        for allocation in asked:
            self.add(problem.space.encode(allocation))

    def is_new(self, choice: Choice) -> bool:
        """Whether a choice was neither measured nor proposed."""
        return key_of(choice) not in self._seen

    def add(self, choice: Choice) -> None:
        """Note a proposal."""
        self._seen.add(key_of(choice))
        self.n_proposed += 1

    def targets(self, spread: float, every: int = 2) -> list[Problem]:
        """Where the next proposal is sought: once in `every` at a smaller limit."""
        return targets(self.problem, spread, self.n_proposed, every)

    def taken(self, choices: Iterable[Choice], n: int) -> list[Allocation]:
        """The first `n` new ones, noted."""
        found = list(islice(unseen(choices, self._seen), n))
        self.n_proposed += len(found)
        return [self.problem.space.decode(choice) for choice in found]


def unseen(choices: Iterable[Choice], seen: set[bytes]) -> Iterator[Choice]:
    """Choices whose keys are not among the seen, where each is noted as it is given."""
    for choice in choices:
        if (key := key_of(choice)) not in seen:
            seen.add(key)
            yield choice


def last_resort(problem: Problem, sweep: Sweep) -> Iterator[Choice]:
    """What a search that finds nothing new takes: the solver's front, then whatever is left."""
    yield from sweep.choices(problem)
    yield from every_choice(problem)


def every_choice(problem: Problem) -> Iterator[Choice]:
    """Every choice of a small space within the limits; nothing of a large one."""
    columns = [np.flatnonzero(row) for row in problem.space.group_allowed]
    if sum(math.log(len(each)) for each in columns) <= math.log(_MAX_CHOICES):
        choices = (np.array(each, dtype=np.int64) for each in product(*columns))
        yield from filter(problem.is_feasible, choices)
