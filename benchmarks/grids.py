"""Make bitfront/formats/grids.json: pairs of numbers that Gaussian pairs are nearest to.

    python benchmarks/grids.py

Lloyd's steps on the density itself, summed over a fine mesh, from several seeded starts; of each
size the best is kept. A few minutes on one core.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

import bitfront.formats

OUT = Path(bitfront.formats.__file__).with_name("grids.json")
SIZES = (16, 32, 64, 128, 256)
N_STARTS = 6
REACH = 6.0
Floats = NDArray[np.float64]


def mesh(step: float) -> tuple[Floats, Floats]:
    """Points of a square mesh `[n, 2]` and the probability of each."""
    axis = np.arange(-REACH, REACH + step / 2, step)
    density = np.exp(-(axis**2) / 2)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    mass = np.outer(density, density).reshape(-1)
    return points, mass / mass.sum()


def descended(grid: Floats, step: float, n_steps: int) -> tuple[Floats, float]:
    """Where Lloyd's steps lead, and the squared error a number there."""
    points, mass = mesh(step)
    error = np.inf
    for _ in range(n_steps):
        distance, nearest = cKDTree(grid).query(points)
        before, error = error, float((mass * distance**2).sum()) / 2
        if before - error < 1e-7 * error:
            break
        held = np.bincount(nearest, mass, len(grid))
        sums = [np.bincount(nearest, mass * points[:, axis], len(grid)) for axis in (0, 1)]
        moved = np.stack(sums, axis=1) / np.maximum(held, 1e-300)[:, None]
        grid = np.where(held[:, None] > 0, moved, grid)
    return grid, error


def best(size: int) -> tuple[Floats, float]:
    """The best of several starts."""
    found = []
    for seed in range(N_STARTS):
        start = np.random.default_rng([size, seed]).normal(size=(size, 2))
        # The best density of many points is the square root of the Gaussian's: twice its variance.
        found.append(descended(start * np.sqrt(2), 0.05, 300))
    return descended(min(found, key=lambda each: each[1])[0], 0.015, 100)


def main() -> None:
    """Write the grids of all sizes."""
    made = {}
    for size in SIZES:
        grid, error = best(size)
        order = np.lexsort((grid[:, 1], grid[:, 0]))
        made[str(size)] = {"error": round(error, 6), "points": grid[order].round(5).tolist()}
        print(size, made[str(size)]["error"], flush=True)
    OUT.write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
