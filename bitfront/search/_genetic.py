"""Genetic search over choices: every operation takes a whole population `[n, n_groups]` at once."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.problem import Problem

Floats = NDArray[np.float64]
Choices = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]

_NOISE = 0.5
"""Standard deviation of the log of the factor that varies the order of repairs between calls."""
_MOST_SWITCHES = 16
_CACHED = 2**17
"""Numbers at a time of a history's choices: a megabyte stays in a processor's cache."""
_FEWEST_GENERATIONS = 2
_MOST_GENES = 3_000_000
"""Groups times population times generations of one call: about a second."""


@dataclass(frozen=True, eq=False)
class Ladder:
    """The formats of each group in order of cost, and the limits that a choice must meet.

    Tables are flat: entry `g * n_formats + f` belongs to format `f` of group `g`.

    Args:
        costs: `[n_limits, n_groups * n_formats]`.
        limits: `[n_limits]`.
        cheaper: next cheaper format, the format itself where it is the cheapest.
        dearer: next dearer format, the format itself where it is the dearest.
        harm: loss that a step down adds per cost saved, by the table; infinite where there is none.
        gain: loss that a step up saves per cost added, by the table; minus infinite where none.
        nearest: the format itself where it is in use, else the next dearer one that is.
        starts: index of the first format of each group, `[n_groups]`.
    """

    costs: Floats
    limits: Floats
    cheaper: Choices
    dearer: Choices
    harm: Floats
    gain: Floats
    nearest: Choices
    starts: Choices

    @classmethod
    def of(cls, problem: Problem, allowed: Mask | None = None) -> Ladder:
        """Ladder of a problem.

        Args:
            problem: the costs, the limits, and the loss that says which steps to prefer.
            allowed: `[n_groups, n_formats]` the formats in use, at least one a group; by default
                all that fit.
        """
        loss = problem.group_loss
        if allowed is None:
            allowed = np.asarray(np.isfinite(loss))
        loss = np.where(np.isfinite(loss), loss, 0.0)
        costs, limits = problem.group_costs, problem.limit_values
        costs = np.where(np.isfinite(costs), costs, 0.0)
        scale = np.maximum(np.abs(limits), 1e-300)[:, None, None]
        every_price = (costs / scale).sum(axis=0)
        price = np.where(allowed, every_price, np.inf)
        # of equal costs, the smaller loss counts as dearer
        order = np.lexsort((-loss, price), axis=1)
        place = order.argsort(axis=1)
        last = allowed.sum(axis=1, keepdims=True) - 1
        cheaper = np.take_along_axis(order, np.clip(place - 1, 0, last), axis=1)
        dearer = np.take_along_axis(order, np.clip(place + 1, 0, last), axis=1)
        harm = _rate(loss, price, cheaper)
        gain = _rate(loss, price, dearer)
        harm[place == 0] = np.inf
        gain[place >= last] = -np.inf
        flat = costs.reshape(len(limits), loss.size)
        starts = np.arange(len(loss)) * loss.shape[1]
        nearest = np.where(allowed, np.arange(loss.shape[1]), _dearer_in_use(every_price, allowed))
        return cls(
            flat,
            limits,
            cheaper.ravel(),
            dearer.ravel(),
            harm.ravel(),
            gain.ravel(),
            nearest.ravel(),
            starts,
        )

    def spent(self, choices: Choices) -> Floats:
        """Costs `[n_limits, n]` of choices."""
        found = np.empty((len(self.costs), len(choices)))
        size = max(_CACHED // max(len(self.starts), 1), 1)
        for start in range(0, len(choices), size):
            rows = slice(start, start + size)
            flat = choices[rows] + self.starts
            for cost, spent in zip(self.costs, found, strict=True):
                spent[rows] = cost[flat].sum(axis=1)
        return found

    def within(self, choices: Choices) -> Mask:
        """Which choices meet every limit, `[n]`."""
        return fits(self.spent(choices), self.limits)

    def fill(self, choices: Choices) -> Floats:
        """Largest share of a limit that each choice takes, `[n]`; 0 where there is no limit."""
        return fill_of(self.spent(choices), self.limits)

    def admitted(self, choices: Choices) -> Choices:
        """Choices in formats that are in use."""
        return np.asarray(self.nearest[choices + self.starts])

    def repaired(self, choices: Choices, rng: np.random.Generator) -> Choices:
        """Choices taken down the ladder until they meet the limits; those that cannot are left out.

        The steps that harm least per cost saved come first, in an order that varies a little.
        """
        choices = choices.copy()
        harm = _varied(self.harm, rng)
        for _ in range(len(self.harm) // len(self.starts) + 1):
            over = self.spent(choices) - self.limits[:, None]
            rows = np.flatnonzero((over > 0).any(axis=0))
            if not len(rows):
                break
            choices[rows] = self._stepped_down(choices[rows], over[:, rows], harm)
        return choices[self.within(choices)]

    def _stepped_down(self, choices: Choices, over: Floats, harm: Floats) -> Choices:
        """As many groups one step down as bring each choice within, all where that is too few."""
        flat = choices + self.starts
        down = self.cheaper[flat]
        order = harm[flat].argsort(axis=1)
        enough = np.ones(choices.shape, dtype=bool)
        for cost, excess in zip(self.costs, over, strict=True):
            saved = cost[flat] - cost[down + self.starts]
            enough &= np.take_along_axis(saved, order, axis=1).cumsum(axis=1) >= excess[:, None]
        n_steps = np.where(enough.any(axis=1), enough.argmax(axis=1) + 1, choices.shape[1])
        taken = np.empty(choices.shape, dtype=bool)
        np.put_along_axis(taken, order, np.arange(choices.shape[1]) < n_steps[:, None], axis=1)
        return np.where(taken, down, choices)

    def filled(self, choices: Choices, rng: np.random.Generator, n_passes: int = 2) -> Choices:
        """Feasible choices taken up the ladder while the limits last, largest gains first."""
        gain = _varied(self.gain, rng)
        for _ in range(n_passes):
            flat = choices + self.starts
            up = self.dearer[flat]
            spare = self.limits[:, None] - self.spent(choices)
            added = np.array([cost[up + self.starts] - cost[flat] for cost in self.costs])
            added = added.reshape(len(self.limits), *choices.shape)
            useful = gain[flat] > 0
            useful &= (added <= spare[:, :, None]).all(axis=0)
            order = np.where(useful, -gain[flat], np.inf).argsort(axis=1)
            taken = np.take_along_axis(useful, order, axis=1)
            for extra, room in zip(added, spare, strict=True):
                extra = np.take_along_axis(np.where(useful, extra, 0.0), order, axis=1)
                taken &= np.maximum.accumulate(extra.cumsum(axis=1), axis=1) <= room[:, None]
            fits = np.empty(choices.shape, dtype=bool)
            np.put_along_axis(fits, order, taken, axis=1)
            choices = np.where(fits, up, choices)
        return choices

    def switched(self, choices: Choices, rng: np.random.Generator) -> Choices:
        """Some groups of each choice one step up, as many others one step down.

        Half of the choices switch one pair, a quarter two, and so on.
        """
        n, n_groups = choices.shape
        n_switches = np.minimum(rng.geometric(0.5, n), _MOST_SWITCHES)
        shape = (n, int(n_switches.max(initial=1)))
        switched = choices.copy()
        rows, columns = np.nonzero(np.arange(shape[1]) < n_switches[:, None])
        for step in (self.dearer, self.cheaper):
            groups = rng.integers(n_groups, size=shape)[rows, columns]
            switched[rows, groups] = step[switched[rows, groups] + self.starts[groups]]
        return switched


def fits(spent: Floats, limits: Floats) -> Mask:
    """As `Ladder.within`, of costs `[n_limits, n]`."""
    return np.asarray((spent <= limits[:, None]).all(axis=0))


def fill_of(spent: Floats, limits: Floats) -> Floats:
    """As `Ladder.fill`, of costs `[n_limits, n]`."""
    shares = spent / np.maximum(limits, 1e-300)[:, None]
    return np.asarray(shares.max(axis=0, initial=0.0))


def _dearer_in_use(price: Floats, allowed: Mask) -> Choices:
    """For each format the next dearer one in use, the dearest where there is none."""
    dearer = price[:, None, :] - price[:, :, None]  # [n_groups, from, to]
    distance = np.where(dearer >= 0, dearer, np.ptp(price) - dearer)
    return np.asarray(np.where(allowed[:, None, :], distance, np.inf).argmin(axis=2))


def _rate(loss: Floats, price: Floats, towards: Choices) -> Floats:
    """Rise of the loss per price saved, or fall per price added, of a step to another format."""
    change = np.take_along_axis(loss, towards, axis=1) - loss
    with np.errstate(invalid="ignore"):  # formats that are not in use cost infinitely much
        saved = price - np.take_along_axis(price, towards, axis=1)
    saved = np.where(np.isfinite(saved), saved, 0.0)
    smallest = 1e-12 * np.where(np.isfinite(price), price, 0.0).max(initial=1e-12)
    return change / np.where(np.abs(saved) > smallest, saved, smallest * np.sign(saved + smallest))


def _varied(rates: Floats, rng: np.random.Generator) -> Floats:
    return rates * np.exp(_NOISE * rng.normal(size=rates.shape))


def affordable(n_generations: int, population: int, n_groups: int) -> int:
    """How many generations there is time for, `_FEWEST_GENERATIONS` at least."""
    return max(min(n_generations, _MOST_GENES // (population * n_groups)), _FEWEST_GENERATIONS)


def most_bred(population: int, n_groups: int) -> int:
    """How many populations there is time for, each of the fewest generations."""
    return max(_MOST_GENES // (_FEWEST_GENERATIONS * population * n_groups), 1)


def crossed(first: Choices, second: Choices, rng: np.random.Generator) -> Choices:
    """Each group's format from one of two parents: uniform crossover."""
    return np.where(rng.integers(0, 2, first.shape, dtype=np.uint8) == 1, first, second)


def offspring(
    ladder: Ladder,
    population: Choices,
    n: int,
    crossover_rate: float,
    rng: np.random.Generator,
) -> Choices:
    """At most `n` repaired children; the population is sorted, the better parent of two breeds."""
    parents = rng.integers(len(population), size=(2, 2, n)).min(axis=0)
    first, second = population[parents[0]], population[parents[1]]
    mixed = rng.random(n) < crossover_rate
    children = np.where(mixed[:, None], crossed(first, second, rng), first)
    return ladder.repaired(ladder.switched(children, rng), rng)


def ranks(points: Floats) -> NDArray[np.int64]:
    """Front of each row of `[n, n_objectives]`, 0 for the non-dominated (Deb et al. 2002).

    Of equal rows each later one counts as dominated by the earlier: twins never crowd a front.
    """
    if points.shape[1] == 2:
        return _ranks_of_two(points)
    n = len(points)
    no_worse = (points[:, None] <= points[None]).all(axis=2)
    better = (points[:, None] < points[None]).any(axis=2)
    earlier = np.arange(n)[:, None] < np.arange(n)
    dominates = no_worse & (better | earlier)
    above, found = dominates.sum(axis=0), np.full(n, -1)
    for front in range(n):
        members = (above == 0) & (found < 0)
        if not members.any():
            break
        found[members] = front
        above = above - dominates[members].sum(axis=0)
    return found


def _ranks_of_two(points: Floats) -> NDArray[np.int64]:
    """As `ranks`, in time n log n: from left to right, the lowest point of a front is its last."""
    found = np.empty(len(points), dtype=np.int64)
    lowest: list[float] = []
    for row in np.lexsort((points[:, 1], points[:, 0])):
        y = float(points[row, 1])
        front = found[row] = bisect_right(lowest, y)
        lowest[front : front + 1] = [y]
    return found


def crowding(points: Floats, fronts: NDArray[np.int64]) -> Floats:
    """Distance of each row to its neighbours in its front, infinite at the ends (Deb et al. 2002).

    Args:
        points: `[n, n_objectives]`.
        fronts: what `ranks` says, `[n]`.
    """
    distance = np.zeros(len(points))
    span = np.maximum(np.ptp(points, axis=0), 1e-300) if len(points) else np.ones(points.shape[1])
    for values in (points / span).T:
        order = np.lexsort((values, fronts))
        step, same = np.diff(values[order]), np.diff(fronts[order]) == 0
        below = np.concatenate([[np.inf], np.where(same, step, np.inf)])
        above = np.concatenate([np.where(same, step, np.inf), [np.inf]])
        distance[order] += below + above
    return distance


def survivors(points: Floats, n: int) -> NDArray[np.int64]:
    """Indices of the `n` best rows: better fronts first, of a front the least crowded."""
    fronts = ranks(points)
    return np.lexsort((-crowding(points, fronts), fronts))[:n]
