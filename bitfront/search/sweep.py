"""A solver over a spread of limits, measured point by point."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from bitfront.allocation import Allocation
from bitfront.errors import InfeasibleBudget, InvalidArgument
from bitfront.problem import Problem
from bitfront.search.base import Search
from bitfront.solvers import SOLVERS, Solution, Solver
from bitfront.trial import Trial


@dataclass(frozen=True)
class Sweep(Search):
    """The solver's front below the budget: the budget itself first, then smaller limits.

    Limits are `factor * budget` with factors evenly spread over `1 - spread` to 1; limits that give
    nothing new are skipped, and when all are used up, twice as many are laid, `n_refinements` times
    at most. Nothing is learned from the measurements: the baseline of the searches that do.

    Needs: a loss table.

    Cost: one solver front.

    Prefer it when only a handful of measurements can be paid: there it is as good as
    `posterior_ilp`.

    Source: ZeroQ, section 4.3; HAWQ-V2, section 3.2.

    Args:
        solver: name of the solver; `lagrangian` gives 200 limits in seconds.
        spread: how far limits go below the budget, as a fraction of it.
        n_limits: limits before the first refinement.
        n_refinements: how often the limits are doubled.
    """

    solver: str = "lagrangian"
    spread: float = 0.15
    n_limits: int = 16
    n_refinements: int = 5

    def __post_init__(self) -> None:
        SOLVERS.load(self.solver)
        if not 0 < self.spread < 1 or self.n_limits < 1 or self.n_refinements < 0:
            raise InvalidArgument(
                f"spread is {self.spread}, n_limits {self.n_limits}, n_refinements "
                f"{self.n_refinements}: give 0 < spread < 1, n_limits >= 1, n_refinements >= 0."
            )

    def ask(
        self,
        problem: Problem,
        history: Sequence[Trial],
        n: int,
        rng: np.random.Generator,
    ) -> list[Allocation]:
        """New points of the front, the nearest to the budget of each refinement first."""
        seen = {trial.allocation for trial in history}
        allocations = map(problem.space.decode, self.choices(problem))
        return list(islice((a for a in allocations if a not in seen), n))

    def choices(self, problem: Problem) -> Iterator[NDArray[np.int64]]:
        """Points of the front: at the budget, then level by level until one brings nothing new."""
        solver = SOLVERS.build(self.solver)
        yield (first := solver.solve(problem).choice)
        known = {first.tobytes()}
        for level in range(self.n_refinements + 1 if problem.limits else 0):
            n_known = len(known)
            for solution in _front(solver, problem, self._limits(problem, level)):
                if solution.choice.tobytes() not in known:
                    known.add(solution.choice.tobytes())
                    yield solution.choice
            if len(known) == n_known:
                return

    def _limits(self, problem: Problem, level: int) -> list[dict[str, float]]:
        """Limits that a level adds, the largest first, without those that cannot be met."""
        n_limits = self.n_limits * 2**level
        steps = np.arange(1, n_limits + 1, 2 if level else 1) * (self.spread / n_limits)
        smallest = {q: float(problem.cost(q).grouped.min(axis=1).sum()) for q in problem.limits}
        scaled = (
            {q: float(np.floor(factor * limit)) for q, limit in problem.limits.items()}
            for factor in 1 - steps
        )
        return [each for each in scaled if all(each[q] >= smallest[q] for q in each)]


def _front(solver: Solver, problem: Problem, limits: list[dict[str, float]]) -> Iterator[Solution]:
    try:
        yield from solver.front(problem, limits)
    except InfeasibleBudget:  # limits that are feasible one by one, not together
        for each in limits:
            with contextlib.suppress(InfeasibleBudget):
                yield solver.solve(problem.with_limits(each))
