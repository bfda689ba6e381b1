"""Few numbers that correct a whole loss table: shared log-linear features of its entries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.problem import Problem
from bitfront.search.base import per_group
from bitfront.solvers import SOLVERS
from bitfront.solvers.base import Steps, way_down
from bitfront.space import SearchSpace

Floats = NDArray[np.float64]
Choice = NDArray[np.int64]

BOUND = 3.0
"""Largest correction of a feature, in prior standard deviations."""
_MAX_GROUPS = 1024
"""Groups that the inverse looks at, evenly spaced: enough for a few dozen unknowns."""
_SLACK = 0.2
"""By how much a correction may miss what a choice implies, in log units, as the prior sees it."""
_MAX_STEPS = 4
"""Newton steps of the inverse: least squares in pieces, so few are enough."""


def floored_table(problem: Problem) -> Floats:
    """The loss table, floored above zero and finite everywhere, `[n_groups, n_formats]`."""
    table = problem.group_loss
    finite = table[np.isfinite(table) & (table > 0)]
    floor = 1e-4 * float(np.median(finite)) if finite.size else 1.0
    return np.where(np.isfinite(table), np.maximum(table, floor), floor)


def log_table(problem: Problem) -> Floats:
    """Log of `floored_table`."""
    return np.log(floored_table(problem))


def features_of(space: SearchSpace) -> Floats:
    """Shared features of each (group, format), `[n_groups, n_formats, n_features]`."""
    first = [space.layers[group[0]] for group in space.groups]
    kinds = sorted({layer.kind for layer in first})
    kind = np.array([[layer.kind == k for k in kinds] for layer in first], dtype=np.float64)
    block = np.array([layer.block for layer in first], dtype=np.float64)
    depth = 2 * block / max(block.max(), 1) - 1
    smooth = np.stack([depth, depth**2 - 1 / 3, depth**3 - 0.6 * depth], axis=1)
    smooth[block < 0] = 0.0  # outside the blocks: no depth to share with them
    bits = np.array([f.code_bits for f in space.formats], dtype=np.float64)
    width = (bits - bits.mean()) / max(float(np.ptp(bits)), 1)
    constant = np.hstack([kind, smooth])
    n_groups, n_formats = len(first), len(bits)
    level = np.broadcast_to(constant[:, None], (n_groups, n_formats, constant.shape[1]))
    format = np.broadcast_to(np.eye(n_formats), (n_groups, n_formats, n_formats))
    return np.concatenate([level, level * width[:, None], format], axis=2)


@dataclass(frozen=True, eq=False)
class Corrections:
    """Vectors of corrections in prior standard deviations, from and to choices of formats.

    A vector corrects the table T to `T exp(prior_sd features . vector)`; solving that decodes it.
    At price m the solver leaves a group in the format whose last step saved at least m a cost and
    whose next would save less: `log rate_in + correction >= log m > log rate_out + correction`. A
    choice thus implies two inequalities a group, linear in the vector and in log m. The inverse is
    the shortest vector that violates them least: ridge least squares over those that are violated,
    a few times, from the uncorrected table on, which is therefore its own inverse.

    Args:
        problem: the tables and the budget.
        prior_sd: standard deviation of one correction, in log units.
        solver: name of the solver.
        log_table: `[n_groups, n_formats]`.
        features: `[n_groups, n_formats, n_features]`.
        steps: the solved table of every cost.
    """

    problem: Problem
    prior_sd: float
    solver: str
    log_table: Floats
    features: Floats
    steps: Steps

    @classmethod
    def of(cls, problem: Problem, prior_sd: float, solver: str) -> Corrections:
        """Corrections of a problem's loss table."""
        logs = log_table(problem)
        loss = np.where(np.isfinite(problem.group_loss), np.exp(logs), np.inf)
        costs = cls._costs_of(problem)
        steps = Steps.along(way_down(loss, costs, convex=True), loss, costs)
        return cls(problem, prior_sd, solver, logs, features_of(problem.space), steps)

    @staticmethod
    def _costs_of(problem: Problem) -> Floats:
        """The limited costs; of several the sum of their shares of the limits; else zeros."""
        costs: Floats = problem.group_costs
        if len(costs) == 1:
            first: Floats = costs[0]
            return first
        shares: Floats = costs / np.maximum(problem.limit_values, 1e-300)[:, None, None]
        return np.where(np.isfinite(problem.group_loss), shares.sum(axis=0), np.inf)

    @property
    def limit(self) -> float:
        """What `costs` of a choice at the limits is; 0 without a limit."""
        limits = self.problem.limit_values
        return float(limits[0]) if len(limits) == 1 else float(len(limits))

    @property
    def n_features(self) -> int:
        """Length of a vector."""
        return int(self.features.shape[2])

    def decode(self, vector: Floats, problem: Problem) -> Choice:
        """The corrected table, solved at the limits of `problem`, `[n_groups]`."""
        values = np.exp(self.log_table + self.features @ (self.prior_sd * vector))
        corrected = problem.with_loss(per_group(problem, values))
        return SOLVERS.build(self.solver).solve(corrected).choice

    def encode(self, choices: Iterable[NDArray[np.signedinteger]]) -> Floats:
        """A vector for each choice, `[n, n_features]`, within the bounds."""
        rows = _spaced(len(self.log_table))
        rate, features = self._implied(rows)
        ridge = np.full(features.shape[-1], (_SLACK / self.prior_sd) ** 2)
        ridge[-1] = 1e-6  # the price is free
        at = np.arange(len(rows))
        vectors = []
        for choice in choices:
            column = choice[rows]
            x = features[:, at, column].reshape(-1, len(ridge))
            least = -rate[:, at, column].ravel()
            start = np.zeros(len(ridge))
            start[-1] = self._log_price(choice.astype(np.int64))
            vectors.append(_least_violating(x, least, ridge, start)[:-1] / self.prior_sd)
        found = np.array(vectors).reshape(len(vectors), self.n_features)
        return np.clip(found, -BOUND, BOUND)

    def costs(self, choice: Choice) -> float:
        """The limited cost of a choice, of several the sum of shares; 0 without a limit."""
        table = self._costs_of(self.problem)
        return float(table[np.arange(len(table)), choice].sum())

    def log_loss(self, costs: Floats) -> Floats:
        """Log of the loss that the solved table promises at each cost."""
        steps = self.steps
        spent = steps.start_cost + np.concatenate([[0.0], np.cumsum(steps.cost)])
        left = steps.start_loss - np.concatenate([[0.0], np.cumsum(steps.cost * steps.rate)])
        floor = max(1e-12 * steps.start_loss, 1e-300)
        return np.log(np.maximum(np.interp(costs, spent, left), floor))

    def _log_price(self, choice: Choice) -> float:
        """Log of the rate of the step that the solved table takes next at the cost of a choice."""
        steps = self.steps
        if not len(steps.rate):
            return 0.0
        spent = steps.start_cost + np.cumsum(steps.cost)
        place = int(np.searchsorted(spent, self.costs(choice), side="right"))
        return float(np.log(max(steps.rate[min(place, len(spent) - 1)], 1e-300)))

    def _implied(self, rows: Choice) -> tuple[Floats, Floats]:
        """What holding a format says: `features . (corrections, log price) >= -rate`.

        The last step is worth the price, the next is not. `rate [2, n, n_formats]` is the signed
        log rate of the two steps, infinite where there is none, and `features [2, n, n_formats,
        n_features + 1]` are those of each step's coarser format, which loses most.
        """
        loss, costs = np.exp(self.log_table[rows]), self._costs_of(self.problem)[rows]
        allowed = np.isfinite(costs)
        costs = np.where(allowed, costs, 0.0)
        saved = loss[:, :, None] - loss[:, None, :]  # from the first format to the second
        dearer = costs[:, None, :] - costs[:, :, None]
        step = (saved > 0) & (dearer > 0) & allowed[:, :, None] & allowed[:, None, :]
        rate = np.full(saved.shape, np.nan)
        np.divide(saved, dearer, out=rate, where=step)
        into = np.where(step, rate, np.inf)
        log_in = np.log(into.min(axis=1))
        log_out = np.log(np.where(step, rate, 1e-300).max(axis=2))
        log_out = np.where(step.any(axis=2), log_out, -np.inf)
        own = self.features[rows]
        before = np.take_along_axis(own, into.argmin(axis=1)[:, :, None], axis=1)
        features = np.stack([before, -own])
        price = np.broadcast_to(
            np.array([-1.0, 1.0])[:, None, None, None], (*features.shape[:3], 1)
        )
        return np.stack([log_in, -log_out]), np.concatenate([features, price], axis=3)


def _least_violating(x: Floats, least: Floats, ridge: Floats, start: Floats) -> Floats:
    """Minimum of the squared violations of `x theta >= least` plus `ridge (theta - start)^2`."""
    theta = start
    active = np.zeros(len(x), dtype=bool)
    for _ in range(_MAX_STEPS):
        violated = x @ theta < least
        if (violated == active).all():
            break
        active = violated
        a, b = x[active], least[active]
        normal, right = a.T @ a + np.diag(ridge), a.T @ b + ridge * start
        theta = np.asarray(np.linalg.solve(normal, right), dtype=np.float64)
    return theta


def _spaced(n_groups: int) -> Choice:
    """Indices of at most `_MAX_GROUPS` groups, evenly spaced."""
    return np.unique(np.linspace(0, n_groups - 1, min(n_groups, _MAX_GROUPS)).astype(np.int64))
