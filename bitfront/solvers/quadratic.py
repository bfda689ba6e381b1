"""Exact solution with loss terms of pairs of groups, by OR-tools CP-SAT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.solvers._programs import Program
from bitfront.solvers.base import Solution, Solver, is_whole
from bitfront.solvers.cp_sat import CpSat


@dataclass(frozen=True)
class Quadratic(Solver):
    """The optimum of the loss table plus what pairs of groups add, within any number of limits.

        min over choices of  sum_g loss[g, c_g] + sum over pairs (i, j) of P_ij[c_i, c_j]

    A pair has one 0/1 variable per two formats, whose sums over either are the variables of the
    groups: the tightest linear form of one product. Loss in the solution includes the pairs.
    Without pairs it is `cp_sat`, which it starts from otherwise.

    Needs: a loss table and measured pairs; any number of limits.

    Cost: exponential at worst; the bound is weaker than without pairs, so the time limit ends it
    more often.

    Prefer it with measured pairs (`n_pairs` of a study) where layers are known to interact: on
    stories15M 24 pairs of neighbours gained nothing.

    Source: Deng et al., CLADO (2023), section 3, which chooses widths by such a quadratic program
    over measured interactions.

    Args:
        time_limit: seconds of search on an idle machine, counted by the work done; afterwards the
            best choice with its bound. (With several limits `cp_sat`, which comes first, counts
            seconds of the clock.)
        seed: of the search.
        resolution: unit of the objective as a fraction of its range.
    """

    time_limit: float = 10.0
    seed: int = 0
    resolution: float = 1e-12

    def __post_init__(self) -> None:
        if not (self.time_limit > 0 and self.seed >= 0 and 1e-15 <= self.resolution <= 1e-3):
            raise InvalidArgument(
                f"time_limit is {self.time_limit}, seed {self.seed}, resolution "
                f"{self.resolution}: give time_limit > 0, seed >= 0 and 1e-15 to 1e-3."
            )

    def solve(self, problem: Problem) -> Solution:
        """The optimum, or at the time limit the best choice found and its bound.

        Raises:
            InfeasibleBudget: no choice meets all limits together.
            InvalidArgument: costs that are no whole numbers.
        """
        start = CpSat(seed=self.seed).solve(problem)
        if not problem.pairs:
            return start
        if not is_whole(problem.group_costs):
            raise InvalidArgument(
                "quadratic needs costs in whole numbers: give them in smaller units."
            )
        allowed = problem.space.group_allowed
        program = Program(allowed)
        for costs, limit in zip(problem.group_costs, problem.limit_values, strict=True):
            program.add_limit(costs, float(limit))
        loss = np.where(allowed, problem.group_loss, 0.0)
        least = np.where(allowed, problem.group_loss, np.inf).min(axis=1, keepdims=True)
        above = np.where(allowed, loss - least, 0.0)
        sizes = [np.abs(values).max() for values in problem.pairs.values()]
        unit = float(above.max(axis=1).sum() + sum(sizes)) * self.resolution or 1.0
        objective = [program.sum(np.rint(above / unit).astype(np.int64))]
        objective += [
            _product(program, pair, np.rint(values / unit).astype(np.int64))
            for pair, values in problem.pairs.items()
        ]
        program.model.minimize(cp_model.LinearExpr.sum(objective))
        program.hint(start.choice)
        solver = cp_model.CpSolver()
        solver.parameters.max_deterministic_time = self.time_limit
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = self.seed
        status = solver.solve(program.model)
        choice, loss_of = start.choice, problem.total_loss
        if status in {cp_model.OPTIMAL, cp_model.FEASIBLE}:
            found = program.choice(solver)
            choice = min(found, choice, key=loss_of)
        n_rounded = len(loss) + len(problem.pairs)
        bound = float(least.sum()) + (solver.best_objective_bound - n_rounded / 2) * unit
        if status == cp_model.UNKNOWN:  # its bound is then 0, which pair terms below 0 undercut
            smallest = (
                float(v[np.ix_(allowed[i], allowed[j])].min())
                for (i, j), v in problem.pairs.items()
            )
            bound = float(least.sum()) + sum(smallest)
        total = loss_of(choice)
        optimal = status == cp_model.OPTIMAL
        return Solution(choice, total, min(bound, total), optimal=optimal)


def _product(
    program: Program, pair: tuple[int, int], values: NDArray[np.int64]
) -> cp_model.LinearExpr:
    """Sum of `values` at the two chosen formats of a pair, linear in variables of its own."""
    first, second = (program.of_group(group) for group in pair)
    both = {(a, b): program.model.new_bool_var("") for a in first for b in second}
    for a, variable in first.items():
        program.model.add(sum(both[a, b] for b in second) == variable)
    for b, variable in second.items():
        program.model.add(sum(both[a, b] for a in first) == variable)
    weights = [int(values[key]) for key in both]
    return cp_model.LinearExpr.weighted_sum(list(both.values()), weights)
