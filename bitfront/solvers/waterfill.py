"""Closed-form bit allocation of rate-distortion theory, rounded to the menu."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.solvers.base import Solution, Solver, cheapest, one_limit

Array = NDArray[np.float64]
Choice = NDArray[np.int64]


@dataclass(frozen=True)
class Waterfill(Solver):
    """Reverse water-filling: each group gets bits by the logarithm of its sensitivity per weight.

    For a loss of `c_g * 4**-b` (Gaussian weights at high rate) the best real-valued bits are

        b_g = b + 1/2 log2(c_g / geometric mean of c)

    with `c_g` per weight and the mean weighted by size. `c_g` is fitted to the loss table's row
    over code bits; `b` is the highest whose rounding to the menu fits the limit, and the leftover
    raises the groups that rounding left farthest below. There is no bound.

    Needs: a loss table and one limit.

    Cost: some sums over the table.

    Prefer it only as a reference for what theory alone gives: measured losses do not fall fourfold
    a bit.

    Source: Cover and Thomas, "Elements of Information Theory", section 10.3; Q-Palette, section 3.

    Args:
        n_bisections: halvings of the interval in which `b` is sought.
    """

    n_bisections: int = 50

    def __post_init__(self) -> None:
        if self.n_bisections < 1:
            raise InvalidArgument(f"n_bisections is {self.n_bisections}: give at least 1.")

    def solve(self, problem: Problem) -> Solution:
        """Feasible choice without a bound.

        Raises:
            InvalidArgument: several limits.
        """
        costs, limit = one_limit(problem, "waterfill")
        bits = np.array([f.code_bits for f in problem.space.formats], dtype=np.float64)
        offset = _offsets(problem, bits)
        best = cheapest(costs, problem.group_loss)
        low, high = bits.min() - offset.max() - 1, bits.max() - offset.min() + 1
        rows = np.arange(len(best))
        for _ in range(self.n_bisections):
            middle = (low + high) / 2
            choice = _rounded(problem, bits, offset + middle)
            if costs[rows, choice].sum() <= limit:
                best, low = choice, middle
            else:
                high = middle
        _raise_shortest(problem, costs, limit, bits, offset + low, best)
        return Solution(best, problem.loss.total(best))


def _raise_shortest(
    problem: Problem, costs: Array, limit: float, bits: Array, target: Array, choice: Choice
) -> None:
    """Spend the leftover, in place: groups farthest below their target rise by one format."""
    rows = np.arange(len(choice))
    spare = limit - float(costs[rows, choice].sum())
    larger = problem.space.group_allowed & (bits > bits[choice][:, None])
    following = np.where(larger, bits, np.inf).argmin(axis=1)
    dearer = costs[rows, following] - costs[rows, choice]
    for row in np.argsort(bits[choice] - target, kind="stable"):
        if larger[row].any() and dearer[row] <= spare:
            choice[row] = following[row]
            spare -= float(dearer[row])


def _offsets(problem: Problem, bits: Array) -> Array:
    """Bits of each group above the average, `1/2 log2(c_g / mean)`, `[n_groups]`."""
    loss = problem.group_loss
    usable = np.isfinite(loss) & (loss > 0)
    logs = np.log2(loss, out=np.zeros_like(loss), where=usable) + 2 * bits
    count = usable.sum(axis=1)
    sizes = np.array(
        [sum(problem.space.layers[i].n_weights for i in g) or 1 for g in problem.space.groups],
        float,
    )
    sensitivity = np.where(usable, logs, 0.0).sum(axis=1) / np.maximum(count, 1) - np.log2(sizes)
    known = count > 0
    if not known.any():
        return np.zeros(len(sizes))
    # groups that lose nothing come after all others
    sensitivity = np.where(known, sensitivity, sensitivity[known].min() - 4 * bits.max())
    offsets: Array = (sensitivity - np.average(sensitivity, weights=sizes)) / 2
    return offsets


def _rounded(problem: Problem, bits: Array, target: Array) -> Choice:
    """Allowed format with code bits nearest to the target, of equals the one that loses least."""
    distance = np.where(problem.space.group_allowed, np.abs(bits - target[:, None]), np.inf)
    nearest = distance == distance.min(axis=1, keepdims=True)
    columns: Choice = np.where(nearest, problem.group_loss, np.inf).argmin(axis=1)
    return columns
