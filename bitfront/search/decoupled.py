"""Two metrics, two groups of layers, one budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.search.base import Search, per_group
from bitfront.search.sweep import Sweep
from bitfront.solvers import SOLVERS
from bitfront.trial import Trial

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Decoupled(Search):
    """Exact solutions at the budget, where each layer is judged by the metric that it hurts more.

        min over choices of  sum_{g in A} T1[g, c_g] / L1  +  w sum_{g in B} T2[g, c_g] / L2

    A and B are the groups of layers of the first and of the second metric (`SecondLoss`), T1 and T2
    their loss tables, L1 and L2 the smallest losses that either metric could have at the budget.
    Every weight w divides the budget between A and B in another way, the best one of that division
    each; w is 1 first, then powers of 2 away from it, then powers in between. Measured, they are a
    front over both metrics.

    Without a second text there is nothing to decouple: then this is `sweep`.

    Needs: a loss table of each of two texts.

    Cost: one solution a proposal, and two once; nothing is learned from measurements.

    Prefer it where a study has a second text (`--second-calibration`) and each text has layers of
    its own; `together=true`, the plain weighted sum of both tables, is what it must beat.

    Source: Zhao et al., MixDQ (2024), section 4.3, which divides the budget first and solves for A
    and B apart; by weights both are one problem, and no division is tried that no weight asks for.

    Args:
        solver: name of the solver.
        together: judge every layer by the weighted sum of both metrics instead.
        max_weight: largest factor between the weights of both metrics.
        n_refinements: how often powers in between are laid.
    """

    solver: str = "cp_sat"
    together: bool = False
    max_weight: float = 64.0
    n_refinements: int = 2

    def __post_init__(self) -> None:
        SOLVERS.load(self.solver)
        if self.solver == "quadratic":  # its pairs are of the first metric, in nats
            raise InvalidArgument(
                "decoupled mixes two tables, and pairs of layers are measured of one: give it a "
                f"solver such as {type(self).solver}."
            )
        if not 2 <= self.max_weight <= 2**40 or not 0 <= self.n_refinements <= 4:
            raise InvalidArgument(
                f"max_weight is {self.max_weight}, n_refinements {self.n_refinements}: give "
                "max_weight from 2 to 2**40, n_refinements from 0 to 4."
            )

    def ask(
        self, problem: Problem, history: Sequence[Trial], n: int, rng: np.random.Generator
    ) -> list[Allocation]:
        """Solutions of weights in their order, those that were not measured yet."""
        if problem.second is None:
            return Sweep().ask(problem, history, n, rng)
        seen = {trial.allocation for trial in history}
        asked: list[Allocation] = []
        if n < 1:
            return asked
        for allocation in self._solutions(problem):
            if allocation not in seen:
                seen.add(allocation)
                asked.append(allocation)
                if len(asked) == n:
                    break
        return asked

    def _solutions(self, problem: Problem) -> Iterator[Allocation]:
        asked = _Asked.of(problem)
        for weight in self._weights():
            yield problem.space.decode(np.array(_choice(self, asked, weight)))

    def summed(self, problem: Problem, tables: Sequence[Floats], weight: float) -> Floats:
        """Loss of each group in each format at a weight, `[n_groups, n_formats]`.

        Args:
            problem: with a second table.
            tables: both, each over its smallest loss.
            weight: of the second.
        """
        assert problem.second is not None, "asked for without a second metric"
        is_second = problem.second.of_second[:, None]
        is_first = ~is_second
        if self.together:
            is_first = is_second = np.ones_like(is_second)
        return np.where(is_first, tables[0], 0) + weight * np.where(is_second, tables[1], 0)

    def _weights(self) -> Iterator[float]:
        """1, then 2, 1/2, 4, 1/4, ..., then halves of these steps, and so on."""
        n_steps = int(np.log2(self.max_weight))
        yield 1.0
        for level in range(self.n_refinements + 1):
            finest = 2**level
            for step in range(1, n_steps * finest + 1):
                if level == 0 or step % 2:
                    yield from (2.0 ** (step / finest), 2.0 ** (-step / finest))


@dataclass(frozen=True)
class _Asked:
    """A problem, equal to others with the same solutions."""

    key: tuple[object, ...]
    problem: Problem = field(compare=False, repr=False)

    @classmethod
    def of(cls, problem: Problem) -> _Asked:
        second = problem.second
        assert second is not None, "asked for without a second metric"
        tables = (problem.loss, second.table, *problem.costs)
        limits = tuple(sorted(problem.limits.items()))
        values = ((x.digest, x.reduction) for x in tables)
        key = (problem.space.digest, *values, limits, second.of_second.tobytes())
        return cls(key, problem)


# Each proposal walks the weights from the first: what was solved for those before is kept.
@lru_cache(maxsize=8)
def _scaled(solver: str, asked: _Asked) -> tuple[Floats, Floats]:
    """Both tables, each over the smallest loss that it can have within the limits."""
    problem = asked.problem
    assert problem.second is not None, "asked for without a second metric"
    tables = []
    for table in (problem.loss, problem.second.table):
        least = SOLVERS.build(solver).solve(problem.with_loss(table)).loss
        scale = least if least > 0 else 1.0
        tables.append(np.where(problem.space.group_allowed, table.grouped, 0.0) / scale)
    return tables[0], tables[1]


@lru_cache(maxsize=2048)
def _choice(search: Decoupled, asked: _Asked, weight: float) -> tuple[int, ...]:
    """Format of each group in the best solution at a weight."""
    tables = _scaled(search.solver, asked)
    summed = per_group(asked.problem, search.summed(asked.problem, tables, weight))
    solution = SOLVERS.build(search.solver).solve(asked.problem.with_loss(summed))
    return tuple(solution.choice.tolist())
