"""Exact solution by OR-tools CP-SAT, for any number of limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from bitfront.errors import InfeasibleBudget, InvalidArgument
from bitfront.problem import Problem
from bitfront.solvers._multipliers import relaxed_many
from bitfront.solvers._programs import Program
from bitfront.solvers.base import Solution, Solver, is_whole
from bitfront.solvers.lagrangian import Lagrangian, open_formats

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class CpSat(Solver):
    """The optimum by constraint programming with one 0/1 variable per open (group, format).

    `lagrangian` comes first: its choice is the hint, and formats whose Lagrangian bound exceeds its
    loss are fixed at 0. Losses become whole numbers over their full range
    (from each group's best to its worst open format) in units of `resolution` times that range;
    `lower_bound` allows for the rounding of every group, so it holds for the true losses, and
    `optimal` means optimal up to that rounding.

    Needs: a loss table; any number of limits.

    Cost: exponential at worst, seconds in practice.

    Prefer it with several limits, where the last 0.1 % matters.

    Source: no paper; the solver is CP-SAT of OR-tools.

    Args:
        time_limit: seconds of search; afterwards the best choice so far with its bound.
        n_workers: threads; only 1 gives the same answer every time.
        seed: of the search.
        resolution: unit of the objective as a fraction of its range.
    """

    time_limit: float = 30.0
    n_workers: int = 1
    seed: int = 0
    resolution: float = 1e-12

    def __post_init__(self) -> None:
        if not (self.time_limit > 0 and self.n_workers >= 1 and self.seed >= 0):
            raise InvalidArgument(
                f"time_limit is {self.time_limit}, n_workers {self.n_workers}, seed {self.seed}: "
                "give time_limit > 0, n_workers >= 1, seed >= 0."
            )
        if not 1e-15 <= self.resolution <= 1e-3:
            raise InvalidArgument(
                f"resolution is {self.resolution}: give a number from 1e-15 to 1e-3."
            )

    def solve(self, problem: Problem) -> Solution:
        """The optimum, or at the time limit the best choice found and its bound.

        Raises:
            InfeasibleBudget: no choice meets all limits together.
            InvalidArgument: costs that are no whole numbers, or nothing found in `time_limit`.
        """
        if not is_whole(problem.group_costs):
            raise InvalidArgument(
                "cp_sat needs costs in whole numbers: give them in smaller units."
            )
        if len(problem.limits) > 1:
            return self._within_all(problem)
        incumbent = Lagrangian().solve(problem)
        if incumbent.optimal:
            return incumbent
        kept = open_formats(
            problem.group_loss, problem.group_costs[0], problem.limit_values[0], incumbent
        )
        return self._search(problem, kept, incumbent)

    def _within_all(self, problem: Problem) -> Solution:
        """Several limits: hint, bound and open formats of the relaxation, where it has a choice."""
        allowed = problem.space.group_allowed
        relaxed = relaxed_many(problem, Lagrangian.n_exchanges, Lagrangian.tolerance)
        if relaxed.choice is None:
            return self._search(problem, allowed, None)
        loss = problem.loss.total(relaxed.choice)
        optimal = loss <= relaxed.bound
        incumbent = Solution(relaxed.choice, loss, min(relaxed.bound, loss), optimal)
        if optimal:
            return incumbent
        costs = np.where(allowed, problem.group_costs, 0.0)
        priced = problem.group_loss + np.tensordot(relaxed.prices, costs, axes=1)
        least = priced.min(axis=1, keepdims=True)
        slack = loss - relaxed.bound + 1e-9 * np.abs(least).sum()
        return self._search(problem, priced - least <= slack, incumbent)

    def _search(self, problem: Problem, kept: Mask, incumbent: Solution | None) -> Solution:
        program = Program(kept)
        for costs, limit in zip(problem.group_costs, problem.limit_values, strict=True):
            program.add_limit(costs, float(limit))
        least = np.where(kept, problem.group_loss, np.inf).min(axis=1, keepdims=True)
        above = np.where(kept, problem.group_loss - least, 0.0)
        unit = float(above.max(axis=1).sum()) * self.resolution or 1.0
        objective = np.rint(above / unit).astype(np.int64)
        program.model.minimize(program.sum(objective))
        if incumbent is not None:
            program.hint(incumbent.choice)
        solver = self._solver()
        status = solver.solve(program.model)
        if status == cp_model.INFEASIBLE:
            raise self._infeasible(problem)
        if status not in {cp_model.OPTIMAL, cp_model.FEASIBLE}:
            if incumbent is None:
                raise InvalidArgument(
                    f"cp_sat found no choice in {self.time_limit:g} s: raise time_limit."
                )
            return incumbent
        n_rounded = int((kept.sum(axis=1) > 1).sum())
        bound = float(least.sum()) + (solver.best_objective_bound - n_rounded / 2) * unit
        choice = program.choice(solver)
        loss = problem.loss.total(choice)
        if incumbent is not None:
            bound = max(bound, incumbent.lower_bound)
            if incumbent.loss < loss:
                choice, loss = incumbent.choice, incumbent.loss
        return Solution(choice, loss, min(bound, loss), optimal=status == cp_model.OPTIMAL)

    def _solver(self) -> cp_model.CpSolver:
        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = self.time_limit
        solver.parameters.num_workers = self.n_workers
        solver.parameters.random_seed = self.seed
        return solver

    def _infeasible(self, problem: Problem) -> InfeasibleBudget:
        """The first limit that the others leave out of reach, with the smallest sum they allow."""
        for index, (quantity, limit) in enumerate(problem.limits.items()):
            program = Program(problem.space.group_allowed)
            for other, costs in enumerate(problem.group_costs):
                if other != index:
                    program.add_limit(costs, float(problem.limit_values[other]))
            allowed = problem.space.group_allowed
            costs = np.where(allowed, problem.group_costs[index], 0).astype(np.int64)
            program.model.minimize(program.sum(costs))
            solver = self._solver()
            if solver.solve(program.model) in {cp_model.OPTIMAL, cp_model.FEASIBLE}:
                return InfeasibleBudget(quantity, limit, solver.best_objective_bound)
        return InfeasibleBudget(quantity, limit, float(problem.group_costs[-1].min(axis=1).sum()))
