"""Level switches of the best allocation, screened on ever more sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.search._levels import Levels
from bitfront.search._record import every_choice, key_of, last_resort, unseen
from bitfront.search._warm_start import n_due, warm_start
from bitfront.search.base import Screening, Search, n_proposed, targets
from bitfront.search.sweep import Sweep
from bitfront.trial import Trial, TrialState

Choice = NDArray[np.int64]

_KEPT = 4
"""One in so many offspring goes on to the next stage, on so many times more sequences."""
_ATTEMPTS = 64
"""Switches tried beyond eight for each offspring before the space counts as exhausted."""
_LEAST_SPREAD = 0.01
"""How far the solver's front goes below the budget where proposals stay at it."""


@dataclass(frozen=True)
class Evolution(Search):
    """(1 + lambda) evolution: the best allocation so far, with a few levels switched.

    A switch raises one group to its next dearer format and lowers others, of nearly equal cost,
    until the limits hold: the budget is kept and no repair is needed. An offspring has a few
    switches, the smaller of two uniform draws. All offspring are screened on few sequences, a
    quarter of them on four times as many, and so on; the best one is proposed and measured whole.
    It is the next parent if it beats all before it (elitism), so luck in a screening costs a
    trial and no more. Every second proposal works at a smaller limit, from the
    point of the measured front that is nearest to it.

    With 16 offspring and at least 16 sequences there are two stages of screening, on a sixteenth
    and on a quarter of them. With fewer sequences than offspring the first stage costs their ratio,
    four trials with 4 sequences; with one sequence nothing is screened.

    Needs: a loss table to start from, and a text that can be measured in parts.

    Cost: milliseconds of arithmetic a proposal, and about one trial for each stage of screening.

    Prefer it where the text is long and many measurements can be paid: it assumes nothing of the
    loss, and so learns nothing of it either.

    Source: EvoPress (Sieberling, Kuznedelev, Kurtic, Alistarh, ICML 2025, Algorithm 1), which takes
    128 offspring in each of 150 generations.

    Args:
        n_offspring: offspring that are screened for a proposal; 1 for none.
        max_switches: the most switches of an offspring, until none of them is new.
        n_warm_start: proposals of the solver's front before all others; with 0 the table is not
            used at all and the start is random.
        spread: how far every second proposal goes below the budget, as a fraction of it; 0 to stay.
    """

    n_offspring: int = 16
    max_switches: int = 3
    n_warm_start: int = 1
    spread: float = 0.15

    def __post_init__(self) -> None:
        if self.n_offspring < 1 or self.max_switches < 1 or self.n_warm_start < 0:
            raise InvalidArgument(
                f"n_offspring is {self.n_offspring}, max_switches {self.max_switches}, n_warm_start"
                f" {self.n_warm_start}: give at least 1, 1 and 0."
            )
        if not 0 <= self.spread < 1:
            raise InvalidArgument(f"spread is {self.spread}: give 0 <= spread < 1.")

    def screen(
        self, problem: Problem, history: Sequence[Trial], rng: np.random.Generator
    ) -> Screening | None:
        """The offspring that are left, on the sequences of their stage."""
        if not self._stages(problem.n_sequences):
            return None
        if n_due(problem, history, self.n_warm_start, self.spread or _LEAST_SPREAD):
            return None
        offspring = self._offspring(problem, _Past.of(problem, history), rng)
        if len(offspring) < 2:
            return None
        return self._selected([problem.space.decode(x) for x in offspring], problem)[1]

    def ask(
        self, problem: Problem, history: Sequence[Trial], n: int, rng: np.random.Generator
    ) -> list[Allocation]:
        """The offspring that did best in the last stage; the first where none was screened."""
        past = _Past.of(problem, history)
        asked = warm_start(
            problem, history, n, rng, self.n_warm_start, self.spread or _LEAST_SPREAD
        )
        for allocation in asked:
            past.add(problem.space.encode(allocation))
        while len(asked) < n:
            choices = self._offspring(problem, past, rng)
            if not choices:
                break
            chosen = problem.space.decode(choices[0])
            if problem.screened:
                offspring = [problem.space.decode(choice) for choice in choices]
                chosen = self._selected(offspring, problem)[0]
            past.add(problem.space.encode(chosen))
            asked.append(chosen)
        if len(asked) < n:
            # Where one format is smaller and another faster, no single switch may keep all limits.
            sweep = Sweep(spread=self.spread or _LEAST_SPREAD)
            left = last_resort(problem, sweep) if self.n_warm_start else every_choice(problem)
            new = islice(unseen(left, past.seen), n - len(asked))
            asked += map(problem.space.decode, new)
        return asked

    def _stages(self, n_sequences: int) -> list[tuple[int, int]]:
        """How many offspring are screened on how many sequences, first to last."""
        stages: list[tuple[int, int]] = []
        n_left = self.n_offspring
        while n_left > 1:
            n_used = max(1, n_sequences // n_left)
            if n_used < n_sequences and (not stages or n_used > stages[-1][1]):
                stages.append((n_left, n_used))
            n_left = -(-n_left // _KEPT)
        return stages

    def _selected(
        self, offspring: list[Allocation], problem: Problem
    ) -> tuple[Allocation, Screening | None]:
        """The best offspring by what was screened, and what is to be screened next."""
        for n_left, n_used in self._stages(problem.n_sequences):
            offspring = offspring[:n_left]
            kl = [problem.screened.get(x, {}).get(n_used) for x in offspring]
            known = {x: v for x, v in zip(offspring, kl, strict=True) if v is not None}
            if len(known) < len(offspring):
                unknown = tuple(x for x in offspring if x not in known)
                return offspring[0], Screening(unknown, n_used)
            offspring = sorted(offspring, key=known.__getitem__)
        return offspring[0], None

    def _offspring(self, problem: Problem, past: _Past, rng: np.random.Generator) -> list[Choice]:
        """New allocations of one parent, at a smaller limit when that is due."""
        *aside, _ = targets(problem, self.spread, past.n_proposed)
        for target in aside:
            if found := self._mutated(past.nearest(target), target, past, rng):
                return found
        parent = past.best()
        return self._mutated(
            past.nearest(problem) if parent is None else parent, problem, past, rng
        )

    def _mutated(
        self, parent: Choice | None, target: Problem, past: _Past, rng: np.random.Generator
    ) -> list[Choice]:
        """The parent moved to the limit, if that is new, and switches of it."""
        levels = Levels.of(target)
        held = levels.cheapest if parent is None else levels.of_choice(parent)
        held = levels.moved(held, rng, by_loss=self.n_warm_start > 0)
        n_wanted = self.n_offspring if self._stages(target.n_sequences) else 1
        found = {}
        for attempt in range(8 * n_wanted + _ATTEMPTS):
            n_switches = int(rng.integers(1, self.max_switches + 1, 2).min())
            level = levels.switched(held, n_switches + attempt // 32, rng) if attempt else held
            choice = levels.choice(level)
            key = key_of(choice)
            if key not in past.seen and target.is_feasible(choice):
                found[key] = choice
            if len(found) == n_wanted:
                break
        return list(found.values())


@dataclass(eq=False)
class _Past:
    """What was proposed and measured.

    Args:
        choices: of the complete trials, `[n, n_groups]`.
        kl: of them, `[n]`.
        totals: their costs, `[n, n_limits]`.
        within: whether they meet the budget, `[n]`.
        seen: all that may not be proposed again.
        n_proposed: how many were proposed.
    """

    choices: list[NDArray[np.int16]]
    kl: NDArray[np.float64]
    totals: NDArray[np.float64]
    within: NDArray[np.bool_]
    seen: set[bytes]
    n_proposed: int

    @classmethod
    def of(cls, problem: Problem, history: Sequence[Trial]) -> _Past:
        rows = np.arange(len(problem.space.groups))
        seen, choices, kl, totals, within = set(), [], [], [], []
        for trial in history:
            choice = problem.space.encode(trial.allocation)
            is_within = problem.is_feasible(choice)
            seen.add(key_of(choice))
            if trial.state is TrialState.COMPLETE:
                choices.append(choice.astype(np.int16))
                kl.append(trial.loss)
                totals.append(problem.group_costs[:, rows, choice].sum(axis=1))
                within.append(is_within)
        shape = (len(choices), len(problem.limits))
        arrays = np.array(kl), np.array(totals).reshape(shape), np.array(within, dtype=bool)
        return cls(choices, *arrays, seen, n_proposed(history))

    def add(self, choice: Choice) -> None:
        """Count a proposal of this answer."""
        self.seen.add(key_of(choice))
        self.n_proposed += 1

    def best(self) -> Choice | None:
        """The complete trial of smallest KL within the budget."""
        if not self.within.any():
            return None
        row = int(np.where(self.within, self.kl, np.inf).argmin())
        return self.choices[row].astype(np.int64)

    def nearest(self, target: Problem) -> Choice | None:
        """The point of the measured front whose cost is nearest to the limits of `target`."""
        if not self.choices:
            return None
        size = (self.totals / np.maximum(target.limit_values, 1e-300)).sum(axis=1)
        order = np.lexsort((self.kl, size))
        least = np.minimum.accumulate(self.kl[order])
        front = order[np.flatnonzero(np.diff(least, prepend=np.inf) < 0)]
        row = int(front[np.abs(size[front] - len(target.limits)).argmin()])
        return self.choices[row].astype(np.int64)
