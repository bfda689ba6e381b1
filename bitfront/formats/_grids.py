"""Grids of least squared error on Gaussian numbers, one or two to a code."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib.resources import files
from itertools import pairwise
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

N_CELLS = 512
_REACH = 6.0
"""Cells of the table of nearest pairs cover numbers up to it."""
_CHUNK = 1 << 14


@cache
def scalar_grid(size: int) -> tuple[float, ...]:
    """Rising numbers of least mean squared error (Max 1960), to the last digit or nearly.

    >>> [round(level, 4) for level in scalar_grid(4)]
    [-1.5104, -0.4528, 0.4528, 1.5104]
    """
    normal = NormalDist()
    grid = [normal.inv_cdf((2 * i + 1) / (2 * size)) for i in range(size)]
    for _ in range(5000):
        ends = [-math.inf, *((a + b) / 2 for a, b in pairwise(grid)), math.inf]
        moved = [
            (normal.pdf(a) - normal.pdf(b)) / (normal.cdf(b) - normal.cdf(a))
            for a, b in pairwise(ends)
        ]
        change = max(abs(a - b) for a, b in zip(grid, moved, strict=True))
        grid = moved
        if change < 1e-12:
            break
    return tuple((b - a) / 2 for a, b in zip(grid, reversed(grid), strict=True))[::-1]


@cache
def pair_grid(size: int) -> tuple[tuple[float, float], ...]:
    """Pairs of least mean squared error that `benchmarks/grids.py` found."""
    stored = json.loads(files("bitfront.formats").joinpath("grids.json").read_text())
    return tuple((x, y) for x, y in stored[str(size)]["points"])


@cache
def pairs(size: int, device: torch.device) -> torch.Tensor:
    """`pair_grid`, float32 `[size, 2]`."""
    import torch

    return torch.tensor(pair_grid(size), device=device)


def nearest_pairs(numbers: torch.Tensor, size: int) -> torch.Tensor:
    """Code (uint8) of the nearest pair for each two neighbours, `[..., n / 2]`."""
    import torch

    grid = pairs(size, numbers.device)
    flat = numbers.reshape(-1, 2).clamp(-1e18, 1e18)
    codes = torch.empty(len(flat), dtype=torch.uint8, device=flat.device)
    half = grid.square().sum(dim=1) / 2
    for first in range(0, len(flat), _CHUNK):
        chunk = slice(first, first + _CHUNK)
        codes[chunk] = (half - flat[chunk] @ grid.T).argmin(dim=1).to(torch.uint8)
    return codes.reshape(*numbers.shape[:-1], -1)


def about_nearest_pairs(numbers: torch.Tensor, size: int) -> torch.Tensor:
    """The pair nearest to the cell that each two neighbours lie in, as numbers; one look-up."""
    import torch

    scale = N_CELLS / (2 * _REACH)
    cells = ((numbers + _REACH) * scale).clamp_(0, N_CELLS - 1).to(torch.int32)
    places = (cells[..., 0::2] * N_CELLS).add_(cells[..., 1::2]).reshape(-1)
    chosen = _by_cell(size, numbers.device).index_select(0, places)
    return chosen.reshape(numbers.shape)


@cache
def _by_cell(size: int, device: torch.device) -> torch.Tensor:
    """Nearest pair to the middle of each cell, float32 `[N_CELLS**2, 2]`."""
    import torch

    axis = (torch.arange(N_CELLS) + 0.5) * (2 * _REACH / N_CELLS) - _REACH
    middles = torch.cartesian_prod(axis, axis)
    codes = nearest_pairs(middles, size).reshape(-1).int()
    return pairs(size, torch.device("cpu")).index_select(0, codes).to(device)
