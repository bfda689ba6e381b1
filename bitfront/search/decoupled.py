"""Two metrics, two groups of layers, one budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.search.base import Search, per_group
from bitfront.search.sweep import Sweep
from bitfront.solvers import SOLVERS
from bitfront.trial import Trial


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

    Cost: one solution a proposal; nothing is learned from measurements.

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
        second = problem.second
        assert second is not None, "asked for without a second metric"
        solver = SOLVERS.build(self.solver)
        tables = []
        for table in (problem.loss, second.table):
            least = solver.solve(problem.with_loss(table)).loss
            scale = least if least > 0 else 1.0
            tables.append(np.where(problem.space.group_allowed, table.grouped, 0.0) / scale)
        is_first, is_second = ~second.of_second[:, None], second.of_second[:, None]
        if self.together:
            is_first = is_second = np.ones_like(is_second)
        for weight in self._weights():
            summed = np.where(is_first, tables[0], 0) + weight * np.where(is_second, tables[1], 0)
            solution = solver.solve(problem.with_loss(per_group(problem, summed)))
            yield problem.space.decode(solution.choice)

    def _weights(self) -> Iterator[float]:
        """1, then 2, 1/2, 4, 1/4, ..., then halves of these steps, and so on."""
        n_steps = int(np.log2(self.max_weight))
        yield 1.0
        for level in range(self.n_refinements + 1):
            finest = 2**level
            for step in range(1, n_steps * finest + 1):
                if level == 0 or step % 2:
                    yield from (2.0 ** (step / finest), 2.0 ** (-step / finest))
