"""Allocations that stand for what searches visit, and Kendall's tau over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import kendalltau

from bitfront import Allocation, Problem
from bitfront.solvers import SOLVERS

RANGES = {"2_to_3": (2, 3), "3_to_4": (3, 4), "4_to_6": (4, 6)}
"""Ranges of average code bits."""


def allocations(problem: Problem, n: int) -> list[Allocation]:
    """A third random, a third random around a width, a third optimised at a random budget; seeded.

    Optimised is for the problem's table, in code bits.
    """
    rng = np.random.default_rng(0)
    space = problem.space
    n_groups, n_formats = len(space.groups), len(space.formats)
    made = []
    for index in range(n):
        if index % 3 == 0:
            choice = rng.integers(n_formats, size=n_groups)
        elif index % 3 == 1:
            centre = rng.uniform(0, n_formats - 1)
            choice = np.clip(np.rint(rng.normal(centre, 0.8, n_groups)), 0, n_formats - 1)
        else:
            limit = np.floor(rng.uniform(2.2, 6) * space.n_weights)
            solver = SOLVERS.build("lagrangian")
            choice = solver.solve(problem.with_limits({"code_bits": float(limit)})).choice
        made.append(space.decode(choice.astype(np.int64)))
    return list(dict.fromkeys(made))


def within(bits: Sequence[float]) -> dict[str, np.ndarray]:
    """Which values lie in each range of bits, by the name of the range."""
    values = np.array(bits)
    return {name: (values >= low) & (values < high) for name, (low, high) in RANGES.items()}


def taus(first: Sequence[float], second: Sequence[float], bits: Sequence[float]) -> dict:
    """Kendall's tau over all allocations, and over those of each range with more than two."""
    parts = {"tau": np.ones(len(bits), dtype=bool)}
    parts |= {f"tau_{name}": inside for name, inside in within(bits).items() if inside.sum() > 2}
    x, y = np.array(first), np.array(second)
    return {name: round(float(kendalltau(x[i], y[i]).statistic), 4) for name, i in parts.items()}
