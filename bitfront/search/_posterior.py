"""Gaussian posterior over log KL: a corrected table, what its entries miss, and pair terms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.sparse import csr_array

from bitfront.problem import Problem
from bitfront.search._corrections import Floats, features_of, log_table
from bitfront.search.base import per_group
from bitfront.solvers.base import Solver

Choices = NDArray[np.int64]

_DRAWS = 24
"""Draws tried for one proposal, each wider than the last."""

_BARRED = 20.0
"""Added to the log of an entry that is to be avoided."""

_DAMPINGS = (0.0, 0.5, 1.0, 0.5, 1.0, 2.0)
"""Damping of the steps that follow the pair terms, one after the other."""

_ENTRY_SDS = (0.05, 0.15, 0.3)
_PAIR_SDS = (0.02, 0.07, 0.2, 0.4)
_NOISE_SDS = (0.005, 0.02)

_N_FEATURES = 6
"""Random features of a drawn pair function."""


@dataclass(frozen=True)
class Scales:
    """Prior standard deviations, in log units, and of what a measurement leaves unexplained."""

    shared: float
    group: float
    entry: float
    pair: float
    noise: float


@dataclass(frozen=True, eq=False)
class Prior:
    """What is believed before anything is measured.

        log kl(a) = c + p log( sum_g t[g, a_g] ) + sum_g w_g e[g, a_g]
                    + sum_{g < h} sqrt(w_g w_h) r[g, a_g; h, a_h]
        t[g, f]   = T[g, f] exp(phi[g, f] . theta + residual_g),    w_g = t[g, a_g] / sum of t

    Args:
        log_table: log T, `[n_groups, n_formats]`.
        features: phi, `[n_groups, n_formats, n_features]`.
        scales: standard deviations of theta, residual, e and r, each with mean zero, and noise.
    """

    log_table: Floats
    features: Floats
    scales: Scales

    @classmethod
    def of(cls, problem: Problem, scales: Scales) -> Prior:
        """For the table of a problem."""
        return cls(log_table(problem), features_of(problem.space), scales)

    @property
    def sd(self) -> Floats:
        """Of the parameters: constant, exponent, shared, residuals; `[n_parameters]`."""
        shared = np.full(self.features.shape[2], self.scales.shared)
        return np.concatenate([[1.0, 0.3], shared, np.full(len(self.log_table), self.scales.group)])

    def table(self, theta: Floats) -> Floats:
        """The corrected table t, `[n_groups, n_formats]`."""
        n_shared = self.features.shape[2]
        shared, residuals = theta[2 : 2 + n_shared], theta[2 + n_shared :]
        return np.asarray(np.exp(self.log_table + self.features @ shared + residuals[:, None]))

    def predict(self, choices: Choices, theta: Floats) -> tuple[Floats, Floats, Floats]:
        """First two terms of log kl `[n]`, Jacobian `[n, n_parameters]`, w `[n, n_groups]`."""
        table = self.table(theta)
        rows = np.arange(len(table))
        terms = table[rows, choices]
        total = terms.sum(axis=1)
        weights = terms / total[:, None]
        exponent, centre = 1 + theta[1], np.log(total)
        shared = np.zeros((len(choices), self.features.shape[2]))
        # A format at a time: picking the features of every choice would take gigabytes.
        for column in range(table.shape[1]):
            shared += np.where(choices == column, weights, 0.0) @ self.features[:, column]
        ones = np.ones((len(choices), 1))
        jacobian = np.hstack([ones, centre[:, None], exponent * shared, exponent * weights])
        return theta[0] + exponent * centre, jacobian, weights


@dataclass(frozen=True, eq=False)
class Posterior:
    """Gaussian around the mode, given measurements; kept in the space of measurements.

    Args:
        prior: with the scales that the measurements make most likely.
        choices: `[n, n_groups]`, the best first.
        mode: `[n_parameters]`.
        jacobian: of the first terms at the mode, `[n, n_parameters]`.
        weights: w of the measured choices where the fit began, `[n, n_groups]`.
        kernels: of these weights, as `_kernels` has them.
        factor: Cholesky factor of the covariance of the measurements, `[n, n]`.
        dual: covariance^-1 times what the measurements say, `[n]`.
    """

    prior: Prior
    choices: Choices
    mode: Floats
    jacobian: Floats
    weights: Floats
    kernels: tuple[Floats, Floats]
    factor: Floats
    dual: Floats

    @classmethod
    def given(cls, prior: Prior, choices: Choices, target: Floats) -> Posterior:
        """From measured log kl `target [n]` of `choices [n, n_groups]`."""
        if not len(choices):
            mode, none = np.zeros(len(prior.sd)), np.zeros((0, 0))
            jacobian, weights = np.zeros((0, len(mode))), np.zeros(choices.shape)
            kernels = (none, none)
            return cls(prior, choices, mode, jacobian, weights, kernels, none, np.zeros(0))
        start = np.zeros(len(prior.sd))
        start[0] = float(np.median(target - prior.predict(choices, start)[0]))
        fitted = _fitted(prior, choices, target, start)
        scales = _likeliest(fitted, target)
        if scales == prior.scales:
            return fitted
        return _fitted(replace(prior, scales=scales), choices, target, fitted.mode)

    def best(self, problem: Problem) -> Choices | None:
        """The best measured choice within the limits of a problem, if any."""
        return next(filter(problem.is_feasible, self.choices), None)

    def beliefs(self, temperature: float, rng: np.random.Generator) -> Iterator[Belief]:
        """The mean, then ever wider draws around it (Matheron's rule)."""
        yield Belief(self, self.mode, self.entries(self.dual), self.dual, (), 0.0)
        prior, n = self.prior, len(self.choices)
        rows = np.arange(len(prior.log_table))
        for step in range(_DRAWS):
            width = temperature * (1 + step / 8)
            theta = rng.normal(size=len(self.mode)) * prior.sd
            entries = rng.normal(size=prior.log_table.shape) * prior.scales.entry
            signs = tuple(rng.normal(size=prior.log_table.shape) for _ in range(_N_FEATURES))
            size = prior.scales.pair / (2 * np.sqrt(_N_FEATURES))
            drawn = self.jacobian @ theta + (self.weights * entries[rows, self.choices]).sum(axis=1)
            for sign in signs:
                drawn += size * _off_diagonal(sign[rows, self.choices] * np.sqrt(self.weights))
            noise = rng.normal(size=n) * prior.scales.noise
            dual = self._solved(drawn + noise)
            yield Belief(
                self,
                self.mode + width * (theta - prior.sd**2 * (self.jacobian.T @ dual)),
                self.entries(self.dual) + width * (entries - self.entries(dual)),
                self.dual - width * dual,
                signs,
                width * size,
            )

    def entries(self, dual: Floats) -> Floats:
        """Mean of e under a dual, `[n_groups, n_formats]`."""
        sums = _sums(dual, self.choices, self.weights, self.prior.log_table.shape[1])
        return np.asarray(self.prior.scales.entry**2 * sums)

    def _solved(self, values: Floats) -> Floats:
        if not len(values):
            return values
        return np.asarray(cho_solve((self.factor, True), values))


@dataclass(frozen=True, eq=False)
class Belief:
    """One function log kl(a), the posterior's mean or a draw.

    Args:
        posterior: whose measurements the pair terms refer to.
        theta: `[n_parameters]`.
        entries: e, `[n_groups, n_formats]`.
        dual: of the pair terms, `[n]`.
        signs: random features of a drawn pair function, each `[n_groups, n_formats]`.
        size: their weight.
    """

    posterior: Posterior
    theta: Floats
    entries: Floats
    dual: Floats
    signs: tuple[Floats, ...]
    size: float

    def minimum(self, problem: Problem, solver: Solver, start: Choices | None = None) -> Choices:
        """The choice of smallest log kl found within the problem's limits.

        Without pair terms it is exact. Then pair terms are followed: linear around the choice they
        are one more table, solved exactly again, and a step is kept when the belief agrees.

        Args:
            problem: gives limits and costs.
            solver: of each step.
            start: where pair terms are followed from, instead of the exact one without them.
        """
        choice = start
        if choice is None:
            choice = solver.solve(problem.with_loss(per_group(problem, self.table))).choice
        lowest = self.value(choice)
        table, rows = self.table, np.arange(len(choice))
        for damping in _DAMPINGS:
            share = table / table[rows, choice].sum()
            switching = damping * (share + share[rows, choice][:, None])
            switching[rows, choice] = 0.0
            around = self._around(share, choice) + switching
            tried = solver.solve(problem.with_loss(per_group(problem, around))).choice
            if (tried == choice).all():
                continue
            value = self.value(tried)
            if value < lowest:
                choice, lowest = tried, value
        return choice

    def without(self, groups: Choices, choice: Choices) -> Belief:
        """The belief in which some groups had better not keep their formats of a choice."""
        entries = self.entries.copy()
        entries[groups, choice[groups]] += _BARRED
        return replace(self, entries=entries)

    @cached_property
    def table(self) -> Floats:
        """Without pair terms, `[n_groups, n_formats]`."""
        return self.posterior.prior.table(self.theta) * np.exp(self.entries)

    def value(self, choice: Choices) -> float:
        """Log kl of a choice, but for the constant."""
        rows = np.arange(len(choice))
        terms = self.table[rows, choice]
        weights = terms / terms.sum()
        value = (1 + self.theta[1]) * np.log(terms.sum())
        measured = self.posterior
        products = np.where(measured.choices == choice, measured.weights * weights, 0.0)
        pair = measured.prior.scales.pair**2 / 2 * _off_diagonal(np.sqrt(products))
        value += float(self.dual @ pair)
        for sign in self.signs:
            value += self.size * float(_off_diagonal(sign[rows, choice] * np.sqrt(weights))[()])
        return float(value)

    def _around(self, share: Floats, choice: Choices) -> Floats:
        """Table of the same slope as log kl at a choice, `[n_groups, n_formats]`.

        Args:
            share: t over its sum at the choice.
            choice: `[n_groups]`.
        """
        measured, rows = self.posterior, np.arange(len(choice))
        held = share[rows, choice]
        same = np.where(measured.choices == choice, measured.weights * held, 0.0)
        variance = measured.prior.scales.pair**2
        overlap = self.dual * np.sqrt(same).sum(axis=1)
        around = (1 + self.theta[1]) * share
        roots = _sums(overlap, measured.choices, np.sqrt(measured.weights), share.shape[1])
        around += variance * roots * np.sqrt(share)
        around[rows, choice] -= variance * (self.dual @ same)  # a group is no pair with itself
        for sign in self.signs:
            parts = sign[rows, choice] * np.sqrt(held)
            others = (parts.sum() - parts)[:, None]
            around += 2 * self.size * others * sign * np.sqrt(share)
        return np.asarray(around)


def _off_diagonal(parts: Floats) -> Floats:
    """Sum of products of all ordered pairs of different items of the last axis."""
    return np.asarray(parts.sum(axis=-1) ** 2 - (parts**2).sum(axis=-1))


def _held(choices: Choices, values: Floats, n_formats: int) -> csr_array:
    """Values at the held formats, zeros elsewhere, `[n, n_groups * n_formats]`."""
    n, n_groups = choices.shape
    places = (np.arange(n_groups) * n_formats + choices).ravel()
    starts = np.arange(n + 1) * n_groups
    return csr_array((values.ravel(), places, starts), shape=(n, n_groups * n_formats))


def _sums(dual: Floats, choices: Choices, values: Floats, n_formats: int) -> Floats:
    """Sum of the values at each held format, weighted by a dual; `[n_groups, n_formats]`."""
    return np.asarray(dual @ _held(choices, values, n_formats)).reshape(-1, n_formats)


def _kernels(choices: Choices, weights: Floats, n_formats: int) -> tuple[Floats, Floats]:
    """Covariances between measurements of the entry and pair terms of unit scale, `[n, n]`."""
    n = len(choices)
    entry, overlap = np.zeros((n, n)), np.zeros((n, n))
    for column in range(n_formats):
        held = np.where(choices == column, weights, 0.0)
        entry += held @ held.T
        roots = np.sqrt(held)
        overlap += roots @ roots.T
    return entry, (overlap**2 - entry) / 2


def _covariance(prior: Prior, jacobian: Floats, kernels: tuple[Floats, Floats]) -> Floats:
    scaled, scales = jacobian * prior.sd, prior.scales
    own = scales.entry**2 * kernels[0] + scales.pair**2 * kernels[1]
    return np.asarray(scaled @ scaled.T + own + scales.noise**2 * np.eye(len(jacobian)))


def _factor(covariance: Floats) -> Floats:
    return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)


def _fitted(prior: Prior, choices: Choices, target: Floats, theta: Floats) -> Posterior:
    """Gauss-Newton to the mode, in the space of measurements: parameters may be many."""
    weights = prior.predict(choices, theta)[2]
    # Once: weights move little, and the products over all groups are most of the work.
    kernels = _kernels(choices, weights, prior.log_table.shape[1])
    for _ in range(12):
        predicted, jacobian, _ = prior.predict(choices, theta)
        factor = _factor(_covariance(prior, jacobian, kernels))
        residual = target - predicted + jacobian @ theta
        dual = np.asarray(cho_solve((factor, True), residual))
        step = prior.sd**2 * (jacobian.T @ dual) - theta
        theta = theta + step
        if np.abs(step).max() < 1e-3:  # log units: below what any measurement tells
            break
    return Posterior(prior, choices, theta, jacobian, weights, kernels, factor, dual)


def _likeliest(fitted: Posterior, target: Floats) -> Scales:
    """Scales of entries, pairs and noise of largest evidence; those of the prior for few."""
    prior, n = fitted.prior, len(target)
    if n <= 6:
        return prior.scales
    predicted, jacobian, _ = prior.predict(fitted.choices, fitted.mode)
    residual = target - predicted + jacobian @ fitted.mode
    entry, pair = fitted.kernels
    scaled = jacobian * prior.sd
    linear = scaled @ scaled.T

    def evidence(scales: Scales) -> float:
        own = scales.entry**2 * entry + scales.pair**2 * pair + scales.noise**2 * np.eye(n)
        factor = _factor(linear + own)
        whitened = solve_triangular(factor, residual, lower=True)
        return float(-whitened @ whitened / 2 - np.log(np.diag(factor)).sum())

    tried = [
        replace(prior.scales, entry=e, pair=p, noise=s)
        for e in _ENTRY_SDS
        for p in _PAIR_SDS
        for s in _NOISE_SDS
    ]
    return max(tried, key=evidence)
