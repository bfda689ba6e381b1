"""Few numbers that correct a whole loss table: shared log-linear features of its entries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitfront.problem import Problem
from bitfront.space import SearchSpace

Floats = NDArray[np.float64]


def log_table(problem: Problem) -> Floats:
    """Log of the loss table, floored above zero, `[n_groups, n_formats]`."""
    table = problem.group_loss
    finite = table[np.isfinite(table) & (table > 0)]
    floor = 1e-4 * float(np.median(finite)) if finite.size else 1.0
    return np.log(np.where(np.isfinite(table), np.maximum(table, floor), floor))


def features_of(space: SearchSpace) -> Floats:
    """Shared features of each (group, format), `[n_groups, n_formats, n_features]`."""
    first = [space.layers[group[0]] for group in space.groups]
    kinds = sorted({layer.kind for layer in first})
    kind = np.array([[layer.kind == k for k in kinds] for layer in first], dtype=np.float64)
    block = np.array([layer.block for layer in first], dtype=np.float64)
    depth = 2 * block / max(block.max(), 1) - 1
    smooth = np.stack([depth, depth**2 - 1 / 3, depth**3 - 0.6 * depth], axis=1)
    smooth[block < 0] = 0.0  # outside the blocks: no depth to share with them
    bits = np.array([f.num_bits for f in space.formats], dtype=np.float64)
    width = (bits - bits.mean()) / max(float(np.ptp(bits)), 1)
    constant = np.hstack([kind, smooth])
    n_groups, n_formats = len(first), len(bits)
    level = np.broadcast_to(constant[:, None], (n_groups, n_formats, constant.shape[1]))
    format = np.broadcast_to(np.eye(n_formats), (n_groups, n_formats, n_formats))
    return np.concatenate([level, level * width[:, None], format], axis=2)
