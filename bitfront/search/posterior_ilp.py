"""A Bayesian correction of the loss table, learned from measurements, solved exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.search._corrections import features_of, log_table
from bitfront.search.base import Search, beside, per_group, sides
from bitfront.search.sweep import Sweep
from bitfront.solvers import SOLVERS, Solver
from bitfront.space import SearchSpace
from bitfront.trial import Trial, TrialState

Floats = NDArray[np.float64]

_DRAWS = 24
"""Draws tried for one proposal, each wider than the last, before the solver's front is swept."""


@dataclass(frozen=True)
class PosteriorIlp(Search):
    """Learned log-linear corrections of the loss table; each proposal solves a posterior draw.

        log kl(a) = c + p log( sum_g T[g, a_g] exp(phi[g, a_g] . theta) ) + noise

    T is the estimator's table. The features phi are few (layer kind, format, depth, their slopes
    with width) plus one residual per group with a narrow prior, so one measurement says something
    about every layer, and the residuals say where a layer departs from its like. `c` and the
    exponent `p` absorb what is not additive at low widths. The posterior is Gaussian around its
    mode (Laplace). A proposal solves the knapsack for the mode, or, when that was measured, for a
    draw (Thompson sampling): always feasible, and optimal for the model drawn.

    One independent correction per (layer, format) is not offered: measured, its draws are dominated
    by whatever they under-rate, and no proposal beats the start.

    Source: linear bandits with an exact oracle (Thompson sampling for combinatorial bandits).
    Cost: one fit of (number of trials)^2 and one solve a proposal. Prefer it whenever a measurement
    costs seconds; `sweep` is as good when only a handful of measurements can be paid.

    Args:
        solver: name of the solver of the drawn problem.
        prior_sd: prior standard deviation of the shared corrections, in log units.
        residual_sd: prior standard deviation of each group's own correction.
        noise_sd: what the model cannot explain of a measured log kl.
        temperature: width of the draws around the mode, 1 for the posterior itself.
        spread: how far every second proposal goes from the budget, as a fraction of it.
    """

    solver: str = "lagrangian"
    prior_sd: float = 0.35
    residual_sd: float = 0.15
    noise_sd: float = 0.02
    temperature: float = 0.7
    spread: float = 0.15

    def __post_init__(self) -> None:
        SOLVERS.load(self.solver)
        for name in ("prior_sd", "residual_sd", "noise_sd", "temperature"):
            if not getattr(self, name) > 0:
                raise InvalidArgument(f"{name} is {getattr(self, name)}: give a positive number.")
        if not 0 <= self.spread < 1:
            raise InvalidArgument(f"spread is {self.spread}: give 0 <= spread < 1.")

    def ask(
        self, problem: Problem, history: Sequence[Trial], n: int, rng: np.random.Generator
    ) -> list[Allocation]:
        """The solved mode, then solved draws; every second one at another limit near the budget."""
        seen = {trial.allocation for trial in history}
        solver = SOLVERS.build(self.solver)
        model = _Model.of(problem, self)
        posterior = _Posterior.given(model, _measured(problem.space, history))
        n_above, n_within = sides(problem, history)
        asked: list[Allocation] = []
        for _ in range(n):
            index = n_above + n_within
            aside = self.spread > 0 and index % 2 == 1 and n_above < n_within
            target = beside(problem, self.spread, index // 2) if aside else problem
            found = self._new(posterior, target, solver, seen, rng)
            if found is None and aside:
                found = self._new(posterior, problem, solver, seen, rng)
            if found is None:
                sweep = Sweep(self.solver, self.spread or 0.01)
                asked += [a for a in sweep.ask(problem, history, n, rng) if a not in seen]
                return asked[:n]
            seen.add(found)
            asked.append(found)
            above = not problem.is_feasible(problem.space.encode(found))
            n_above, n_within = n_above + above, n_within + (not above)
        return asked

    def _new(
        self,
        posterior: _Posterior,
        problem: Problem,
        solver: Solver,
        seen: set[Allocation],
        rng: np.random.Generator,
    ) -> Allocation | None:
        """The first solved draw that was not measured, the mode before all."""
        for theta in posterior.draws(self.temperature, rng):
            values = posterior.model.corrected(theta)
            choice = solver.solve(problem.with_loss(per_group(problem, values))).choice
            allocation = problem.space.decode(choice)
            if allocation not in seen:
                return allocation
        return None


@dataclass(frozen=True, eq=False)
class _Model:
    """Table and features of the groups, with the prior.

    Args:
        log_table: `[n_groups, n_formats]`, log of the table floored above zero.
        features: `[n_groups, n_formats, n_features]`.
        prior_sd: `[2 + n_features + n_groups]`: constant, exponent, shared, residuals.
        noise_sd: standard deviation of a measured log kl.
    """

    log_table: Floats
    features: Floats
    prior_sd: Floats
    noise_sd: float

    @classmethod
    def of(cls, problem: Problem, search: PosteriorIlp) -> _Model:
        table = log_table(problem)
        features = features_of(problem.space)
        shared = np.full(features.shape[2], search.prior_sd)
        residuals = np.full(len(table), search.residual_sd)
        prior_sd = np.concatenate([[1.0, 0.3], shared, residuals])
        return cls(table, features, prior_sd, search.noise_sd)

    def corrected(self, theta: Floats) -> Floats:
        """Table under corrections, `[n_groups, n_formats]`."""
        n_shared = self.features.shape[2]
        shared, residuals = theta[2 : 2 + n_shared], theta[2 + n_shared :]
        return np.exp(self.log_table + self.features @ shared + residuals[:, None])

    def predict(self, choices: NDArray[np.int64], theta: Floats) -> tuple[Floats, Floats]:
        """Predicted log kl `[n]` of `choices [n, n_groups]`, its Jacobian `[n, n_parameters]`."""
        rows = np.arange(choices.shape[1])
        terms = self.corrected(theta)[rows, choices]
        total = terms.sum(axis=1)
        weights = terms / total[:, None]
        exponent = 1 + theta[1]
        picked = self.features[rows, choices]
        shared = np.einsum("ng,ngf->nf", weights, picked)
        centre = np.log(total)
        jacobian = np.hstack(
            [np.ones((len(choices), 1)), centre[:, None], exponent * shared, exponent * weights]
        )
        return theta[0] + exponent * centre, jacobian


def _measured(space: SearchSpace, history: Sequence[Trial]) -> tuple[NDArray[np.int64], Floats]:
    """Choices `[n, n_groups]` and log kl `[n]` of the usable trials.

    Every trial is measured on the same tokens, so the standard error that they share ranks nothing.
    """
    usable = [t for t in history if t.state is TrialState.COMPLETE and t.values.get("kl", 0.0) > 0]
    choices = np.array([space.encode(t.allocation) for t in usable], dtype=np.int64)
    kl = np.array([t.values["kl"] for t in usable])
    return choices.reshape(len(usable), len(space.groups)), np.log(kl)


@dataclass(frozen=True, eq=False)
class _Posterior:
    """Gaussian around the mode, kept as the linear system of the measurements.

    Args:
        model: what is corrected.
        mode: `[n_parameters]`.
        jacobian: `[n_trials, n_parameters]` at the mode.
        factor: Cholesky factor of J S J^T + noise, `[n_trials, n_trials]`.
    """

    model: _Model
    mode: Floats
    jacobian: Floats
    factor: Floats

    @classmethod
    def given(cls, model: _Model, measured: tuple[NDArray[np.int64], Floats]) -> _Posterior:
        """Gauss-Newton to the mode, in the space of trials: parameters may be many."""
        choices, target = measured
        theta = np.zeros(len(model.prior_sd))
        jacobian, factor = np.zeros((0, len(theta))), np.zeros((0, 0))
        if len(choices):
            theta[0] = float(np.median(target - model.predict(choices, theta)[0]))
            for _ in range(20):
                predicted, jacobian = model.predict(choices, theta)
                factor = _factor(model, jacobian)
                residual = target - predicted + jacobian @ theta
                step = _gain(model, jacobian, factor, residual) - theta
                theta = theta + step
                if np.abs(step).max() < 1e-6:
                    break
        return cls(model, theta, jacobian, factor)

    def draws(self, temperature: float, rng: np.random.Generator) -> Iterator[Floats]:
        """The mode, then ever wider draws around it (Matheron's rule)."""
        yield self.mode
        for step in range(_DRAWS):
            prior = rng.normal(size=len(self.mode)) * self.model.prior_sd
            if len(self.factor):
                noise = rng.normal(size=len(self.factor)) * self.model.noise_sd
                prior -= _gain(
                    self.model, self.jacobian, self.factor, self.jacobian @ prior + noise
                )
            yield self.mode + temperature * (1 + step / 8) * prior


def _factor(model: _Model, jacobian: Floats) -> Floats:
    scaled = jacobian * model.prior_sd
    covariance = scaled @ scaled.T + model.noise_sd**2 * np.eye(len(jacobian))
    return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)


def _gain(model: _Model, jacobian: Floats, factor: Floats, residual: Floats) -> Floats:
    """Prior covariance times J^T (J S J^T + noise)^-1 residual, `[n_parameters]`."""
    solved = np.linalg.solve(factor.T, np.linalg.solve(factor, residual))
    return np.asarray(model.prior_sd**2 * (jacobian.T @ solved), dtype=np.float64)
