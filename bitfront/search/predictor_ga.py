"""A genetic search that asks a learned predictor instead of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.search._genetic import Ladder, affordable, fits, most_bred, offspring
from bitfront.search._predictors import Predictor, check_predictor
from bitfront.search._proposals import Past, picked
from bitfront.search._warm_start import warm_start
from bitfront.search.base import Search
from bitfront.solvers import SOLVERS
from bitfront.trial import Trial

Floats = NDArray[np.float64]
Choices = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class PredictorGa(Search):
    """Breeds allocations at the budget for the smallest loss that a learned predictor expects.

    A regression of the measured log kl (`predictor`, refitted at every call) judges thousands of
    allocations. A population that starts from the best measured ones and the solver's is crossed,
    switched (one group up, another down), taken back into the budget and filled up to it; the
    best that was never measured is proposed.

    The papers fit the predictor once, on thousands of measured networks; here it is fitted after
    each measurement, on the difference to the estimator's table.

    Needs: a loss table, and measurements to fit.

    Cost: one fit, and `population * n_generations` predictions a proposal; where many are asked
    for at once of very many groups, one population serves several limits.

    Prefer it with some hundred measurements or more, where layers interact in ways that no
    correction of the table tells.

    Source: the genetic search with an accuracy predictor of EQ-Net (Xu et al., ICCV 2023) and APQ
    (Wang et al., CVPR 2020).

    Args:
        predictor: `gaussian_process`, `gradient_boosting`, `rbf` or `ridge`.
        solver: name of the solver that the population starts from.
        population: allocations kept of each generation.
        n_generations: most generations; fewer for very many groups or proposals at once.
        crossover_rate: share of the children that have two parents.
        n_warm_start: proposals of the solver's front before the first of its own; 0 for none.
        spread: how far every second proposal goes below the budget, as a fraction of it.
    """

    predictor: str = "gaussian_process"
    solver: str = "lagrangian"
    population: int = 64
    n_generations: int = 24
    crossover_rate: float = 0.5
    n_warm_start: int = 8
    spread: float = 0.15

    def __post_init__(self) -> None:
        check_predictor(self.predictor)
        SOLVERS.load(self.solver)
        if min(self.population, self.n_generations) < 2 or self.n_warm_start < 0:
            raise InvalidArgument(
                f"population is {self.population}, n_generations {self.n_generations}, "
                f"n_warm_start {self.n_warm_start}: give at least 2, 2 and 0."
            )
        if not (0 <= self.crossover_rate <= 1 and 0 <= self.spread < 1):
            raise InvalidArgument(
                f"crossover_rate is {self.crossover_rate}, spread {self.spread}: give "
                "0 <= crossover_rate <= 1 and 0 <= spread < 1."
            )

    def ask(
        self, problem: Problem, history: Sequence[Trial], n: int, rng: np.random.Generator
    ) -> list[Allocation]:
        """The best unmeasured of a bred population; every second one at a smaller limit."""
        spread = self.spread or 0.01
        asked = warm_start(problem, history, n, rng, self.n_warm_start, spread)
        if len(asked) >= n:
            return asked
        past = Past.of(problem, history, asked)
        predictor = Predictor.fitted(self.predictor, problem, *past.near(problem), rng)
        choices, spent, log_kl = past.measured()
        order = np.argsort(log_kl, kind="stable")
        best, spent = choices[order], spent[:, order]

        wanted = n - len(asked)
        n_generations = affordable(self.n_generations, self.population * wanted, best.shape[1])

        most = most_bred(self.population, best.shape[1])
        bred: list[tuple[Floats, Choices]] = []

        def ranked(target: Problem) -> Choices:
            limits = target.limit_values
            if len(bred) >= most and (near := _nearest(bred, limits)) is not None:
                return near
            parents = best[fits(spent, limits)]
            parents = parents[: self.population // 2]
            bred.append((limits, self._bred(target, parents, predictor, n_generations, rng)))
            return bred[-1][1]

        return asked + picked(problem, past, wanted, self.solver, self.spread, ranked)

    def _bred(
        self,
        target: Problem,
        parents: Choices,
        predictor: Predictor,
        n_generations: int,
        rng: np.random.Generator,
    ) -> Choices:
        """The last population within the limits of `target`, the smallest prediction first."""
        ladder = Ladder.of(target)
        solved = SOLVERS.build(self.solver).solve(target).choice[None]
        start = np.concatenate([solved, parents])
        population = np.concatenate([start, ladder.filled(ladder.repaired(start, rng), rng)])
        predicted = predictor.predict(population)
        for _ in range(n_generations):
            children = offspring(ladder, population, self.population, self.crossover_rate, rng)
            children = ladder.filled(children, rng)
            population = np.concatenate([population, children])
            predicted = np.concatenate([predicted, predictor.predict(children)])
            _, kept = np.unique(predicted, return_index=True)  # twins predict alike
            population, predicted = population[kept], predicted[kept]
            population, predicted = population[: self.population], predicted[: self.population]
        return population


def _nearest(bred: Sequence[tuple[Floats, Choices]], limits: Floats) -> Choices | None:
    """The population bred for the widest limits that are within `limits`."""
    within = [each for each in bred if (each[0] <= limits).all()]
    return max(within, key=lambda each: tuple(each[0]))[1] if within else None
