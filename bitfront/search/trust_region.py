"""Descent along the measured gradient at the best allocation, one exact solve a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.search.base import Search, n_proposed, per_group, targets
from bitfront.search.sweep import Sweep
from bitfront.solvers import SOLVERS
from bitfront.table import LayerTable
from bitfront.trial import Trial, TrialState

_ASIDE = 4
"""One proposal in so many looks at a smaller limit."""

_SCALES = (1.0, 2.0, 1.4, 4.0, 0.7, 2.8, 8.0, 16.0, 0.5)
"""Multiples of the damping, in the order they are tried at one allocation.

Longer steps than the first come late: measured at 4 bits, half the damping switches half of the
layers and KL rises by 40 %, twice the damping gains half of what the first gains.
"""


@dataclass(frozen=True)
class TrustRegion(Search):
    """Switches many layers at once along the gradient of KL at the best allocation so far.

        model(a) = sum_g slope[g, a_g] + damping * curvature[g, a_g]
        curvature[g, f] = s (T[g, f] + T[g, held]),  0 for the held format

    The slope is measured at the quantized model by one backward pass, so it knows how each
    layer's error adds to or cancels those of the others, which no table of single layers does.
    Switching a layer replaces its error by another, nearly independent one, so its second-order
    term is the sum of both sensitivities T of the estimator; s scales T to the measured KL. The
    damping keeps a step so small that the switched layers' own interactions stay behind what
    the step gains. Several steps, bolder and more cautious, are measured from one slope; then the
    best allocation gets a slope of its own. The first proposal is the solved table.

    Needs: gradients of the quantized model, beside a loss table.

    Cost: per improvement one forward and backward pass over the estimation blocks (about three
    forward passes), three solves a proposal.

    Prefer it below 4 bits, where interactions dominate.

    Source: trust-region methods (Conn, Gould, Toint 2000, chapter 6) on the loss of SignRoundV2's
    operating point.

    Args:
        solver: name of the solver of each step.
        damping: weight of the curvature in the first step from an allocation, 1 for the plain
            second-order model; the following steps take more of it.
        n_steps: steps from an allocation before a new slope is measured at the best one.
        spread: how far every fourth proposal goes below the budget, as a fraction of it.
    """

    solver: str = "lagrangian"
    damping: float = 1.5
    n_steps: int = 2
    spread: float = 0.15

    def __post_init__(self) -> None:
        SOLVERS.load(self.solver)
        if not self.damping > 0 or not 0 < self.spread < 1 or self.n_steps < 1:
            raise InvalidArgument(
                f"damping is {self.damping}, spread {self.spread}, n_steps {self.n_steps}: give "
                "damping > 0, 0 < spread < 1 and n_steps >= 1."
            )

    def slope_at(self, problem: Problem, history: Sequence[Trial]) -> Allocation | None:
        """The best allocation, when the steps from the last slope are taken and it is a new one."""
        if self._solved(problem) not in {trial.allocation for trial in history}:
            return None
        within = _within(problem, history)
        base = _base(problem, within)
        if base is not None and len(within) - 1 - within.index(base) < self.n_steps:
            return None
        best = _best(within)
        return None if best is None or best.allocation in problem.slopes else best.allocation

    def ask(
        self, problem: Problem, history: Sequence[Trial], n: int, rng: np.random.Generator
    ) -> list[Allocation]:
        """Steps from the last slope; the solver's front where no slope is known."""
        seen = {trial.allocation for trial in history}
        solved = self._solved(problem)
        asked = [] if solved in seen or n < 1 else [solved]
        seen.add(solved)
        base = _base(problem, _within(problem, history))
        if base is not None and len(asked) < n:
            target = targets(problem, self.spread, n_proposed(history), _ASIDE)[0]
            for allocation in self._steps(target, base, problem.slopes[base.allocation]):
                if allocation not in seen:
                    seen.add(allocation)
                    asked.append(allocation)
                if len(asked) == n:
                    break
        if len(asked) < n:
            sweep = Sweep(self.solver, self.spread).ask(problem, history, n, rng)
            asked += [a for a in sweep if a not in seen][: n - len(asked)]
        return asked

    def _solved(self, problem: Problem) -> Allocation:
        """The estimator's table solved at the budget."""
        return problem.space.decode(SOLVERS.build(self.solver).solve(problem).choice)

    def _steps(self, problem: Problem, base: Trial, slope: LayerTable) -> Iterator[Allocation]:
        """Solutions at the problem's limits under one damping after the other."""
        solver = SOLVERS.build(self.solver)
        choice = problem.space.encode(base.allocation)
        rows = np.arange(len(choice))
        table = np.where(problem.space.group_allowed, problem.group_loss, 0.0)
        scale = max(base.loss, 0.0) / max(float(np.abs(table[rows, choice]).sum()), 1e-300)
        curvature = scale * (table + table[rows, choice][:, None])
        curvature[rows, choice] = 0.0
        for multiple in _SCALES:
            model = per_group(problem, slope.grouped + multiple * self.damping * curvature)
            yield problem.space.decode(solver.solve(problem.with_loss(model)).choice)


def _within(problem: Problem, history: Sequence[Trial]) -> list[Trial]:
    """Complete trials that meet the budget, oldest first."""
    complete = [t for t in history if t.state is TrialState.COMPLETE]
    return [t for t in complete if problem.is_feasible(problem.space.encode(t.allocation))]


def _best(trials: Sequence[Trial]) -> Trial | None:
    return min(trials, key=lambda t: t.loss, default=None)


def _base(problem: Problem, within: Sequence[Trial]) -> Trial | None:
    """The best trial whose slope is known: where steps start."""
    return _best([t for t in within if t.allocation in problem.slopes])
