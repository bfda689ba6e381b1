"""Formats of each group from the cheapest to the dearest, and moves between neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bitfront.problem import Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Levels:
    """A problem whose formats are numbered, group by group, from the cheapest up.

    Args:
        way: format of each level, `[n_groups, n_formats]`; formats that do not fit come last.
        top: highest level that fits, `[n_groups]`.
        size: cost as a part of the limits, `[n_groups, n_formats]` by level.
        costs: `[n_limits, n_groups, n_formats]` by level.
        loss: `[n_groups, n_formats]` by level.
        limits: `[n_limits]`.
    """

    way: Ints
    top: Ints
    size: Floats
    costs: Floats
    loss: Floats
    limits: Floats

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """Levels by cost, all limits weighing the same; by code bits where costs tie."""
        allowed = np.isfinite(problem.group_loss)
        scale = np.maximum(problem.limit_values, 1e-300)[:, None, None]
        size = np.where(allowed, (problem.group_costs / scale).sum(axis=0), np.inf)
        bits = np.array([f.code_bits for f in problem.space.formats], dtype=np.float64)
        way = np.lexsort((np.broadcast_to(bits, size.shape), size), axis=1)
        size, loss = (np.take_along_axis(x, way, axis=1) for x in (size, problem.group_loss))
        costs = np.take_along_axis(problem.group_costs, way[None], axis=2)
        return cls(way, allowed.sum(axis=1) - 1, size, costs, loss, problem.limit_values)

    def of_choice(self, choice: Ints) -> Ints:
        """Levels of formats, both `[n_groups]`."""
        found: Ints = (self.way == choice[:, None]).argmax(axis=1)
        return found

    def choice(self, level: Ints) -> Ints:
        """Formats of levels, both `[n_groups]`."""
        return self.way[self._rows, level]

    @property
    def cheapest(self) -> Ints:
        """The cheapest format of every group."""
        return np.zeros(len(self.top), dtype=np.int64)

    def moved(self, level: Ints, rng: np.random.Generator, by_loss: bool) -> Ints:
        """Lowered until the limits hold, then raised until nothing fits any more.

        Args:
            level: `[n_groups]`, left untouched.
            rng: where the table is not followed, steps come in random order.
            by_loss: follow the loss table: what loses least per cost is lowered first, what
                gains most per cost raised first, and nothing that gains nothing.
        """
        level = level.copy()
        self._lower(level, rng, by_loss)
        self._raise(level, rng, by_loss, np.ones(len(level), dtype=bool))
        return level

    def switched(self, level: Ints, n_switches: int, rng: np.random.Generator) -> Ints:
        """Random groups a level up, and others down until the limits hold.

        One switch in two is between groups of nearly equal cost. What the others free, groups
        take that were not touched. Limits that hold before hold after.
        """
        level = level.copy()
        free = np.ones(len(level), dtype=bool)
        for _ in range(n_switches):
            raisable = np.flatnonzero(free & (level < self.top))
            if not raisable.size:
                break
            group, before = rng.choice(raisable), (level.copy(), free.copy())
            level[group] += 1
            free[group] = False
            self._make_room(level, free, rng)
            if self._over(level) > 0:
                level, free = before
        self._raise(level, rng, False, free)
        return level

    def _make_room(self, level: Ints, free: Mask, rng: np.random.Generator) -> None:
        """Lower free groups at random, in place, until the limits hold or none is left."""
        is_near = rng.random() < 0.5
        while (over := self._total(level) - self.limits).max(initial=0.0) > 0:
            saved = np.where(free, self._saved(level)[over.argmax()], 0.0)
            if not saved.max() > 0:
                return
            enough = saved[saved >= over.max()]
            least = enough.min() if enough.size else saved.max()
            chosen = (saved >= least) & (saved <= 2 * least) if is_near else saved > 0
            group = rng.choice(np.flatnonzero(chosen))
            level[group] -= 1
            free[group] = False

    def _lower(self, level: Ints, rng: np.random.Generator, by_loss: bool) -> None:
        """Lower groups, in place, until the limits hold or none is left."""
        while (over := self._total(level) - self.limits).max(initial=0.0) > 0:
            saved = self._saved(level)[over.argmax()]
            rows = rng.permutation(np.flatnonzero(saved > 0))
            if not rows.size:
                return
            if by_loss:
                lost = self.loss[rows, level[rows] - 1] - self.loss[rows, level[rows]]
                rows = rows[np.argsort(lost / saved[rows], kind="stable")]
            n_needed = int(np.searchsorted(np.cumsum(saved[rows]), over.max())) + 1
            level[rows[:n_needed]] -= 1

    def _raise(self, level: Ints, rng: np.random.Generator, by_loss: bool, free: Mask) -> None:
        """Raise free groups, in place, until no step fits."""
        while True:
            above = np.minimum(level + 1, self.top)
            extra = self.costs[:, self._rows, above] - self.costs[:, self._rows, level]
            spare = (self.limits - self._total(level))[:, None]
            fits = free & (level < self.top) & (extra <= spare).all(axis=0)
            gained = self.loss[self._rows, level] - self.loss[self._rows, above]
            rows = rng.permutation(np.flatnonzero(fits & (gained > 0) if by_loss else fits))
            if not rows.size:
                return
            if by_loss:
                grown = self.size[rows, above[rows]] - self.size[rows, level[rows]]
                rate = gained[rows] / np.maximum(grown, 1e-300)
                rows = rows[np.argsort(-rate, kind="stable")]
            fit = (np.cumsum(extra[:, rows], axis=1) <= spare).all(axis=0)
            n_taken = len(rows) if fit.all() else int(fit.argmin())
            level[rows[: max(n_taken, 1)]] += 1

    def _saved(self, level: Ints) -> Floats:
        """What one level down saves, `[n_limits, n_groups]`."""
        below = np.maximum(level - 1, 0)
        return self.costs[:, self._rows, level] - self.costs[:, self._rows, below]

    def _over(self, level: Ints) -> float:
        """By how much the limit is exceeded that is exceeded most; 0 where all hold."""
        return float((self._total(level) - self.limits).max(initial=0.0))

    def _total(self, level: Ints) -> Floats:
        """`[n_limits]`."""
        total: Floats = self.costs[:, self._rows, level].sum(axis=1)
        return total

    @property
    def _rows(self) -> Ints:
        return np.arange(len(self.top))
