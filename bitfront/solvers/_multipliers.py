"""Lagrangian relaxation with a multiplier for each of several limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.problem import Problem
from bitfront.solvers.base import Steps, way_down

Array = NDArray[np.float64]
Choice = NDArray[np.int64]

_SWEEPS = 12
"""Rounds in which every multiplier in turn is set to its best, the others held."""
_SUBGRADIENTS = 60
_PATIENCE = 6
"""Subgradient steps without a better bound before the next are half as long."""
_PASSES = 64
_CANDIDATES = 192
"""Changes of one group, cheapest at the multipliers first, that exchanges are made of."""


@dataclass(frozen=True, eq=False)
class Relaxed:
    """The best bound found, and the best choice near it.

    Args:
        prices: loss that one more unit of each limit saves, `[n_limits]`.
        bound: no feasible choice has a smaller loss.
        choice: within every limit, `[n_groups]`; `None` where none was found.
    """

    prices: Array
    bound: float
    choice: Choice | None


@dataclass(frozen=True, eq=False)
class Dual:
    """The problem priced: each group on its own minimizes loss + prices . costs.

        bound(prices) = sum_g min_f (loss[g, f] + prices . costs[:, g, f]) - prices . limits

    Costs are shares of their limits, so that prices compare (of the dearest format where a limit is
    smaller).

    Args:
        loss: `[n_groups, n_formats]`, infinite where not allowed.
        costs: `[n_limits, n_groups, n_formats]`, 0 where not allowed.
        limits: `[n_limits]`.
        scale: what the shares are of, `[n_limits]`.
    """

    loss: Array
    costs: Array
    limits: Array
    scale: Array

    @classmethod
    def of(cls, problem: Problem) -> Dual:
        """That of a problem, with limits no larger than the dearest choice, so all are finite."""
        costs = np.where(np.isfinite(problem.group_loss), problem.group_costs, 0.0)
        # A hair of room, so that the order of a sum cannot decide whether it is within.
        limits = np.minimum(problem.limit_values, costs.max(axis=2).sum(axis=1))
        whole = (np.floor(costs) == costs).all(axis=(1, 2))
        limits = np.where(whole, np.floor(limits), limits - 1e-12 * np.abs(limits))
        scale = np.maximum(np.abs(limits), costs.max(axis=(1, 2)))
        scale[scale == 0] = 1.0
        return cls(problem.group_loss, costs / scale[:, None, None], limits / scale, scale)

    def at(self, prices: Array) -> tuple[float, Choice]:
        """Bound and minimizing choice at prices `[n_limits]`."""
        priced = self.loss + np.tensordot(prices, self.costs, axes=1)
        choice = priced.argmin(axis=1)
        rows = np.arange(len(choice))
        return float(priced[rows, choice].sum() - prices @ self.limits), choice

    def over(self, choice: Choice) -> Array:
        """By how much each limit is exceeded, `[n_limits]`; negative below it."""
        total: Array = self.costs[:, np.arange(len(choice)), choice].sum(axis=1)
        return total - self.limits

    def along(self, prices: Array, limit: int) -> float:
        """The best price of one limit, the others held: exact, by the convex hull of each group."""
        others = prices.copy()
        others[limit] = 0.0
        loss = self.loss + np.tensordot(others, self.costs, axes=1)
        costs = np.where(np.isfinite(loss), self.costs[limit], np.inf)
        steps = Steps.along(way_down(loss, costs, convex=True), loss, costs)
        spare = self.limits[limit] - steps.start_cost
        n_taken = int(np.searchsorted(np.cumsum(steps.cost), spare, side="right"))
        if n_taken < len(steps.rate):
            return float(steps.rate[n_taken])
        return 0.0


def relaxed_many(problem: Problem, n_exchanges: int, tolerance: float) -> Relaxed:
    """Multipliers by coordinate and subgradient ascent, then a choice near them, improved.

    Args:
        problem: with any number of limits.
        n_exchanges: most exchanges of two groups.
        tolerance: relative gap at which both stop.
    """
    dual = Dual.of(problem)
    prices = np.zeros(len(dual.limits))
    best, best_prices, found = -np.inf, prices, Found(dual)
    for _ in range(_SWEEPS):
        before = best
        for limit in range(len(prices)):
            prices[limit] = dual.along(prices, limit)
            bound, choice = dual.at(prices)
            found.offer(choice, prices)
            if bound > best:
                best, best_prices = bound, prices.copy()
        if best - before <= 1e-9 * abs(best):
            break
    best, best_prices = _ascended(dual, best, best_prices, found, tolerance)
    found.exchange(best_prices, best, n_exchanges, tolerance)
    return Relaxed(best_prices / dual.scale, best, found.choice)


def _ascended(
    dual: Dual, best: float, best_prices: Array, found: Found, tolerance: float
) -> tuple[float, Array]:
    """Polyak's subgradient steps: coordinates alone can halt at a kink of the bound."""
    prices, length, n_stuck = best_prices.copy(), 1.0, 0
    for _ in range(_SUBGRADIENTS):
        bound, choice = dual.at(prices)
        found.offer(choice, prices)
        n_stuck += 1
        if bound > best:
            best, best_prices, n_stuck = bound, prices.copy(), 0
        elif n_stuck == _PATIENCE:
            prices, length, n_stuck = best_prices.copy(), length / 2, 0
            continue
        slope = dual.over(choice)
        slope[(prices <= 0) & (slope < 0)] = 0.0
        size = float(slope @ slope)
        gap = found.loss - best if np.isfinite(found.loss) else 0.05 * abs(best)
        if size == 0 or gap <= tolerance * abs(found.loss):
            break
        prices = np.maximum(prices + length * gap / size * slope, 0.0)
    return best, best_prices


class Found:
    """The best choice within the limits so far.

    Args:
        dual: whose.
    """

    def __init__(self, dual: Dual) -> None:
        self.dual = dual
        self.choice: Choice | None = None
        self.loss = np.inf
        self._seen: set[bytes] = set()

    def offer(self, choice: Choice, prices: Array) -> None:
        """Bring a choice within the limits, spend what is left, and keep it if it is better."""
        key = choice.tobytes()
        if key in self._seen:
            return
        self._seen.add(key)
        choice = choice.copy()
        if not self._lowered(choice, prices):
            return
        self._filled(choice, prices)
        loss = float(self.dual.loss[np.arange(len(choice)), choice].sum())
        if loss < self.loss:
            self.choice, self.loss = choice, loss

    def _changes(self, choice: Choice) -> tuple[Array, Array]:
        """Costs `[n_limits, n_groups, n_formats]` and loss that every format adds."""
        rows, dual = np.arange(len(choice)), self.dual
        dearer = dual.costs - dual.costs[:, rows, choice][:, :, None]
        return dearer, dual.loss - dual.loss[rows, choice][:, None]

    def _lowered(self, choice: Choice, prices: Array) -> bool:
        """Change groups, in place, until all limits hold; false when that does not come about."""
        left = np.inf
        for _ in range(_PASSES):
            over = self.dual.over(choice)
            total = float(np.maximum(over, 0).sum())
            if total <= 0:
                return True
            if not total < left:
                return False
            left = total
            dearer, added = self._changes(choice)
            before = np.maximum(over, 0)[:, None, None]
            relief = (before - np.maximum(over[:, None, None] + dearer, 0)).sum(axis=0)
            useful = (relief > 1e-15) & np.isfinite(added)
            worse = np.maximum(added + np.tensordot(prices, dearer, axes=1), 0) + 1e-300
            price = np.full(worse.shape, np.inf)
            np.divide(worse, relief, out=price, where=useful)
            column = price.argmin(axis=1)
            rows = np.flatnonzero(useful.any(axis=1))
            rows = rows[np.argsort(price[rows, column[rows]], kind="stable")]
            n_needed = int(np.searchsorted(np.cumsum(relief[rows, column[rows]]), total)) + 1
            self._take(choice, rows[:n_needed], column, total)
        return False

    def _take(self, choice: Choice, rows: Choice, column: Choice, total: float) -> None:
        """Take changes together, in place, or the first alone where together they do not help."""
        before = choice[rows]
        choice[rows] = column[rows]
        if float(np.maximum(self.dual.over(choice), 0).sum()) >= total and len(rows) > 1:
            choice[rows[1:]] = before[1:]

    def _filled(self, choice: Choice, prices: Array) -> None:
        """Spend what is left, in place, best loss saved per price first."""
        for _ in range(_PASSES):
            spare = -self.dual.over(choice)
            dearer, added = self._changes(choice)
            useful = (added < 0) & (dearer <= spare[:, None, None]).all(axis=0)
            if not useful.any():
                return
            spent = np.maximum(dearer, 0)
            priced = np.tensordot(prices, spent, axes=1) + 1e-9 * spent.sum(axis=0)
            rate = np.full(added.shape, -np.inf)
            np.divide(-added, priced + 1e-12, out=rate, where=useful)
            column = rate.argmax(axis=1)
            rows = np.flatnonzero(useful.any(axis=1))
            rows = rows[np.argsort(-rate[rows, column[rows]], kind="stable")]
            whole = np.cumsum(spent[:, rows, column[rows]], axis=1)
            n_taken = max(int((whole <= spare[:, None]).all(axis=0).sum()), 1)
            choice[rows[:n_taken]] = column[rows[:n_taken]]

    def exchange(self, prices: Array, bound: float, n_most: int, tolerance: float) -> None:
        """Change two groups at once, the best pair each time, while that lowers the loss."""
        for _ in range(n_most if self.choice is not None else 0):
            if self.loss - bound <= tolerance * abs(self.loss):
                return
            pair = self._best_pair(prices)
            if pair is None:
                return
            assert self.choice is not None
            choice = self.choice.copy()
            for group, column in pair:
                choice[group] = column
            self.offer(choice, prices)

    def _best_pair(self, prices: Array) -> list[tuple[int, int]] | None:
        assert self.choice is not None
        spare = -self.dual.over(self.choice)
        dearer, added = self._changes(self.choice)
        dearer_at, added_at = dearer.reshape(len(prices), -1), added.ravel()
        reduced = np.where(np.isfinite(added_at), added_at + prices @ dearer_at, np.inf)
        n_formats = added.shape[1]
        moved = np.arange(added.size) % n_formats != np.repeat(self.choice, n_formats)
        pool = np.flatnonzero(moved & np.isfinite(reduced))
        pool = pool[np.argsort(reduced[pool], kind="stable")[:_CANDIDATES]]
        if len(pool) < 2:
            return None
        total = added_at[pool][:, None] + added_at[pool][None]
        cost = dearer_at[:, pool][:, :, None] + dearer_at[:, pool][:, None]
        group = pool // n_formats
        fits = (cost <= spare[:, None, None]).all(axis=0) & (group[:, None] != group[None])
        total = np.where(fits, total, np.inf)
        first, second = np.unravel_index(int(total.argmin()), total.shape)
        if not total[first, second] < -1e-12 * abs(self.loss):
            return None
        return [(int(pool[i]) // n_formats, int(pool[i]) % n_formats) for i in (first, second)]
