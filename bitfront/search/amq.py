"""AMQ: prune the space, learn a predictor, breed its Pareto front, measure a spread of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.search._genetic import Ladder, affordable, fill_of, fits, offspring, survivors
from bitfront.search._predictors import Predictor, check_predictor
from bitfront.search._proposals import Past, picked
from bitfront.search._warm_start import warm_start
from bitfront.search.base import Search
from bitfront.solvers import SOLVERS
from bitfront.trial import Trial

Floats = NDArray[np.float64]
Choices = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Amq(Search):
    """NSGA-II over predicted loss and size, in a space without low widths for sensitive groups.

    Groups whose estimated loss at the fewest bits exceeds `pin_ratio` times the median never take
    the fewest bits. In what is left, NSGA-II breeds the front of (predicted loss, size) from the
    measured front; candidates spread along the size are measured, the predictor is refitted, and
    so on. At the budget and, in turn, at limits below it, the proposal is the candidate within the
    limit with the smallest predicted loss.

    In the paper the menu is 2, 3 and 4 bits with pins at 4 and a ratio of 2, the predictor radial
    basis functions, the design 250 random allocations, and 200 rounds measure 50 each: 10,250
    measurements. Here the predictor learns the difference to the estimator's table, the design is
    the solver's front, and a call refits. A pinned group keeps its choice of all other formats: on
    a menu up to 8 bits, pins at the high ones spent a budget of 3 bits, and 584 measurements of
    stories15M found nothing better than the solver's front. Ours is also that pins yield, the least
    sensitive first, where they would take more than half of what the budget leaves above the
    cheapest formats.

    Needs: a loss table, and measurements to fit.

    Cost: one fit and `population * n_generations` predictions a call.

    Prefer it with several hundred measurements, where the whole front is wanted rather than one
    budget.

    Source: AMQ (Lee et al., EMNLP 2025, arXiv 2509.12019).

    Args:
        predictor: `gaussian_process`, `gradient_boosting`, `rbf` or `ridge`.
        solver: name of the solver that the population starts from.
        pin_ratio: loss at the fewest bits, as a multiple of the median, above which a group is
            kept from the fewest bits; 0 pins nothing.
        n_random: random allocations of the pruned space that are measured before the first fit.
        population: allocations kept of each generation.
        n_generations: most generations; fewer where there are very many groups.
        crossover_rate: share of the children that have two parents.
        n_warm_start: proposals of the solver's front before the first of its own; 0 for none.
        spread: how far every second proposal goes below the budget, as a fraction of it.
    """

    predictor: str = "rbf"
    solver: str = "lagrangian"
    pin_ratio: float = 2.0
    n_random: int = 4
    population: int = 96
    n_generations: int = 20
    crossover_rate: float = 0.9
    n_warm_start: int = 8
    spread: float = 0.15

    def __post_init__(self) -> None:
        check_predictor(self.predictor)
        SOLVERS.load(self.solver)
        if (
            min(self.population, self.n_generations) < 2
            or min(self.n_warm_start, self.n_random) < 0
        ):
            raise InvalidArgument(
                f"population is {self.population}, n_generations {self.n_generations}, "
                "n_warm_start "
                f"{self.n_warm_start}, n_random {self.n_random}: give at least 2, 2, 0 and 0."
            )
        if not (0 <= self.crossover_rate <= 1 and 0 <= self.spread < 1 and self.pin_ratio >= 0):
            raise InvalidArgument(
                f"crossover_rate is {self.crossover_rate}, spread {self.spread}, pin_ratio "
                f"{self.pin_ratio}: give 0 <= crossover_rate <= 1, 0 <= spread < 1, pin_ratio >= 0."
            )

    def ask(
        self, problem: Problem, history: Sequence[Trial], n: int, rng: np.random.Generator
    ) -> list[Allocation]:
        """Members of the bred front, at the budget and below it in turn."""
        asked = warm_start(problem, history, n, rng, self.n_warm_start, self.spread or 0.01)
        if len(asked) >= n:
            return asked
        past = Past.of(problem, history, asked)
        allowed = unpinned(problem, self.pin_ratio)
        front = _Front.bred(self, problem, allowed, past, rng)
        n_design = self.n_warm_start + self.n_random

        def ranked(target: Problem) -> Choices:
            if past.n_proposed < n_design:
                ladder = Ladder.of(target, allowed)
                return ladder.filled(_random(ladder, allowed, 4, rng), rng)
            return front.choices[fits(front.spent, target.limit_values)]

        wanted = n - len(asked)
        return asked + picked(problem, past, wanted, self.solver, self.spread, ranked)


def unpinned(problem: Problem, pin_ratio: float) -> NDArray[np.bool_]:
    """Formats that each group may take, `[n_groups, n_formats]`: pinned ones not the lowest.

    Args:
        problem: its loss table says which groups are sensitive, its limits how many can be pinned.
        pin_ratio: as in `Amq`.
    """
    loss, fits = problem.group_loss, np.isfinite(problem.group_loss)
    bits = np.array([f.code_bits for f in problem.space.formats], dtype=np.float64)
    high = fits & (bits > bits.min())
    lowest = np.where(fits, bits, np.inf).argmin(axis=1)
    worst = loss[np.arange(len(loss)), lowest]
    pinnable = (worst > pin_ratio * np.median(worst)) & high.any(axis=1) & (pin_ratio > 0)
    sensitive = np.flatnonzero(pinnable)
    sensitive = sensitive[np.argsort(-worst[sensitive], kind="stable")]
    kept = np.full(len(sensitive), True)
    for costs, limit in zip(problem.group_costs, problem.limit_values, strict=True):
        cheapest = costs.min(axis=1)
        extra = np.where(high, costs, np.inf).min(axis=1)[sensitive] - cheapest[sensitive]
        kept &= np.cumsum(extra) <= (limit - cheapest.sum()) / 2
    pinned = sensitive[kept]
    allowed = fits.copy()
    allowed[pinned] = high[pinned]
    return allowed


def _random(
    ladder: Ladder, allowed: NDArray[np.bool_], n: int, rng: np.random.Generator
) -> Choices:
    """At most `n` random choices of the allowed formats, taken into the limits."""
    draws = np.where(allowed, rng.random((n, *allowed.shape)), -1.0)
    return ladder.repaired(draws.argmax(axis=2), rng)


@dataclass(frozen=True, eq=False)
class _Front:
    """The last population of NSGA-II, the smallest prediction first.

    Args:
        choices: `[n, n_groups]`, all within the budget.
        spent: their costs, `[n_limits, n]`.
    """

    choices: Choices
    spent: Floats

    @classmethod
    def bred(
        cls,
        search: Amq,
        problem: Problem,
        allowed: NDArray[np.bool_],
        past: Past,
        rng: np.random.Generator,
    ) -> _Front:
        """Breed it from the measured front and the solver's solution."""
        ladder = Ladder.of(problem, allowed)
        predictor = Predictor.fitted(search.predictor, problem, *past.near(problem), rng)
        solver = SOLVERS.build(search.solver)
        solved = solver.solve(problem).choice[None]
        measured, spent, log_kl = past.measured()
        within = fits(spent, problem.limit_values)
        at = np.stack([log_kl, fill_of(spent, problem.limit_values)], axis=1)[within]
        best = measured[within][survivors(at, search.population)]
        choices = ladder.repaired(ladder.admitted(np.concatenate([solved, best])), rng)
        if not len(choices):  # several limits, which pins or the order of repairs do not meet
            choices = solved
        predicted = predictor.predict(choices)
        floor = min(1 - search.spread, float(ladder.fill(choices).max()))
        n = search.population
        for _ in range(affordable(search.n_generations, n, choices.shape[1])):
            children = offspring(ladder, choices, n, search.crossover_rate, rng)
            children = children[ladder.fill(children) >= floor]
            if not len(children):
                continue
            choices = np.concatenate([choices, children])
            predicted = np.concatenate([predicted, predictor.predict(children)])
            kept = survivors(np.stack([predicted, ladder.fill(choices)], axis=1), n)
            choices, predicted = choices[kept], predicted[kept]
        choices = choices[np.argsort(predicted, kind="stable")]
        return cls(choices, ladder.spent(choices))
