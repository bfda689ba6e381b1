"""Allocations as genes: parents by Optuna from the whole history, children repaired to fit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import optuna
from numpy.typing import NDArray

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.search._levels import Levels
from bitfront.search._optuna import quiet, seed_of
from bitfront.search._record import Choice, Record, last_resort
from bitfront.search._warm_start import warm_start
from bitfront.search.base import Search, learned_kl
from bitfront.search.sweep import Sweep
from bitfront.trial import Trial

Floats = NDArray[np.float64]
GeneticSampler = optuna.samplers.NSGAIISampler | optuna.samplers.NSGAIIISampler

_LEAST_REACH = 0.05
"""How far from the budget parents may be, as half a fraction of it, where `spread` is less."""
_CHILDREN = 16
"""Children tried for one proposal, each mutated more than the last."""


@dataclass(frozen=True)
class GeneticSearch(Search):
    """The loop that genetic searches share; a subclass says what is optimized and who survives.

    Args:
        population_size: how many of the measured allocations may be parents.
        n_mutations: genes of a child that are drawn anew, on average.
        repair_sd: noise of the loss table by which children are repaired, in log units.
        spread: how far every second proposal goes below the budget, as a fraction of it.
        n_warm_start: with how many points of the solver's front the search begins.
    """

    population_size: int = 12
    n_mutations: float = 1.0
    repair_sd: float = 0.1
    spread: float = 0.15
    n_warm_start: int = 8

    def __post_init__(self) -> None:
        if self.population_size < 2 or self.n_warm_start < 0 or not 0 <= self.spread < 1:
            raise InvalidArgument(
                f"population_size is {self.population_size}, spread {self.spread}, n_warm_start "
                f"{self.n_warm_start}: give population_size >= 2, 0 <= spread < 1, "
                "n_warm_start >= 0."
            )
        if self.n_mutations < 0 or self.repair_sd < 0:
            raise InvalidArgument(
                f"n_mutations is {self.n_mutations}, repair_sd {self.repair_sd}: give at least 0."
            )

    @abstractmethod
    def selector(self, seed: int) -> GeneticSampler:
        """The sampler of Optuna's that picks the parents."""

    @abstractmethod
    def quantities(self, problem: Problem) -> tuple[str, ...]:
        """Costs that are minimized besides the loss."""

    def ask(
        self, problem: Problem, history: Sequence[Trial], n: int, rng: np.random.Generator
    ) -> list[Allocation]:
        """The solver's front, then children; every second one at a smaller limit."""
        spread = self.spread or 0.01
        asked = warm_start(problem, history, n, rng, self.n_warm_start, spread)
        if len(asked) >= n:
            return asked
        record = Record(problem, history, asked)
        parents = self._parents(problem, history, record, rng)
        while len(asked) < n:
            found = self._new(problem, parents, record, rng)
            if found is None:
                left = last_resort(problem, Sweep(spread=spread))
                return asked + record.taken(left, n - len(asked))
            record.add(found)
            asked.append(problem.space.decode(found))
        return asked

    def _parents(
        self,
        problem: Problem,
        history: Sequence[Trial],
        record: Record,
        rng: np.random.Generator,
    ) -> list[Choice]:
        """The survivors of all that was measured near the budget, of all where that is too few."""
        quantities = self.quantities(problem)
        tables = [problem.cost(quantity).grouped for quantity in quantities]
        rows = np.arange(len(problem.space.groups))
        choices: list[Choice] = []
        objectives: list[list[float]] = []
        for trial, packed in zip(history, record.choices, strict=True):
            if (kl := learned_kl(trial)) > 0:
                choices.append(packed.astype(np.int64))
                costs = [float(table[rows, choices[-1]].sum()) for table in tables]
                objectives.append([float(np.log(kl)), *costs])
        points = np.array(objectives).reshape(len(choices), 1 + len(quantities))
        limited = [i for i, quantity in enumerate(quantities, 1) if quantity in problem.limits]
        limits = np.array([problem.limits[quantities[i - 1]] for i in limited])
        reach = 2 * max(self.spread, _LEAST_REACH)
        near = (np.abs(points[:, limited] - limits) <= reach * limits).all(axis=1)
        pool = np.flatnonzero(near) if near.sum() >= 4 else np.arange(len(points))
        with quiet():
            kept = survivors(self.selector(seed_of(rng)), points[pool])
        return [choices[index] for index in pool[kept]]

    def _new(
        self,
        problem: Problem,
        parents: Sequence[Choice],
        record: Record,
        rng: np.random.Generator,
    ) -> Choice | None:
        """The first repaired child that is new."""
        for target in record.targets(self.spread):
            levels = Levels.of(target)
            for attempt in range(_CHILDREN):
                child = self._child(target, parents, self.n_mutations + attempt, rng)
                found = self._repaired(levels, child, rng)
                if target.is_feasible(found) and record.is_new(found):
                    return found
        return None

    def _child(
        self,
        problem: Problem,
        parents: Sequence[Choice],
        n_mutations: float,
        rng: np.random.Generator,
    ) -> Choice:
        """Two parents crossed and mutated, or a random choice while there are none."""
        allowed = problem.space.group_allowed
        if len(parents) < 2:
            return random_choice(allowed, rng)
        first, second = rng.choice(len(parents), 2, replace=False)
        return crossed(allowed, (parents[first], parents[second]), n_mutations, rng)

    def _repaired(self, levels: Levels, child: Choice, rng: np.random.Generator) -> Choice:
        """Into the limits, what is left spent, by the loss table with noise."""
        noise = np.exp(self.repair_sd * rng.normal(size=levels.loss.shape))
        noisy = replace(levels, loss=levels.loss * noise)
        return noisy.choice(noisy.moved(noisy.of_choice(child), rng, by_loss=True))


def survivors(sampler: GeneticSampler, points: Floats) -> list[int]:
    """Which rows of `points [n, n_objectives]` the sampler keeps as parents of a generation."""
    key = {f"{type(sampler).__name__}:generation": 0}
    study = optuna.create_study(sampler=sampler, directions=["minimize"] * points.shape[1])
    study.add_trials([optuna.trial.create_trial(values=list(p), system_attrs=key) for p in points])
    return sorted(trial.number for trial in sampler.select_parent(study, 1))


def crossed(
    allowed: NDArray[np.bool_],
    parents: tuple[Choice, Choice],
    n_mutations: float,
    rng: np.random.Generator,
) -> Choice:
    """Uniform crossover: each gene from either of two parents, some drawn anew, `[n_groups]`.

    Optuna's own default crossover and mutation on arrays: a study of thousands of parameters takes
    tens of milliseconds for one child, these take one.

    Args:
        allowed: `[n_groups, n_formats]`.
        parents: choices, `[n_groups]` each.
        n_mutations: how many genes are drawn anew, on average.
        rng: the only source of randomness.
    """
    child: Choice = np.where(rng.random(len(allowed)) < 0.5, *parents)
    is_open = allowed.sum(axis=1) > 1
    share = min(n_mutations / max(int(is_open.sum()), 1), 1.0)
    anew = is_open & (rng.random(len(allowed)) < share)
    child[anew] = random_choice(allowed[anew], rng)
    return child


def random_choice(allowed: NDArray[np.bool_], rng: np.random.Generator) -> Choice:
    """An allowed format for each group, all alike probable, `[n_groups]`."""
    drawn: Choice = np.where(allowed, rng.random(allowed.shape), -1.0).argmax(axis=1)
    return drawn
