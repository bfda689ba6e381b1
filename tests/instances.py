"""Small random problems for the tests of solvers, searches and nouns; formats without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitfront.formats.base import Format, StoredTensor
from bitfront.problem import Problem
from bitfront.space import Layer, SearchSpace
from bitfront.table import LayerTable


@dataclass(frozen=True)
class Plain(Format):
    """Codes and one 16-bit scale a group: only the arithmetic of a format."""

    num_bits: int = 4
    group_size: int | None = 64

    @property
    def name(self):
        return f"plain{self.num_bits}"

    @property
    def group_columns(self):
        return self.group_size

    @classmethod
    def catalogue(cls):
        return (cls(),)

    def levels(self):
        return tuple(float(code) for code in range(2**self.num_bits))

    def stored_qparams(self, shape):
        n_groups = shape[1] // self.group_size if self.group_size else 1
        return {"scale": StoredTensor((shape[0], n_groups), "float16")}

    def qparams(self, weight, clip=1.0):
        raise NotImplementedError

    def affine(self, qparams):
        raise NotImplementedError


def plain_menu(bits=(2, 3, 4, 5, 6, 8), group_size=64):
    return tuple(Plain(b, group_size) for b in bits)


def random_space(rng, n_groups, n_formats, misfits=True):
    """Groups of one to three layers of random shapes; some columns fit only per-row formats."""
    layers = []
    for group in range(n_groups):
        shape = (int(rng.integers(1, 9)) * 16, int(rng.integers(1, 5)) * 64)
        if misfits and rng.random() < 0.2:
            shape = (shape[0], shape[1] + 16)
        layers += [
            Layer(f"model.layers.{group}.part{part}", shape, f"group{group}")
            for part in range(int(rng.integers(1, 4)))
        ]
    bits = (2, 3, 4, 5, 6, 7, 8, 12)[:n_formats]
    formats = tuple(Plain(b, None if b in (4, 8) else 64) for b in bits)
    return SearchSpace(tuple(layers), formats if n_formats > 2 else plain_menu(bits, None))


def realistic_tables(rng, space):
    """Exact bytes, code bits, and a loss that falls fourfold a bit, with noise."""
    bits = np.array([f.num_bits for f in space.formats])
    n_weights = np.array([layer.n_weights for layer in space.layers], dtype=float)
    nbytes = np.array([[f.nbytes(x.shape) for f in space.formats] for x in space.layers], float)
    scale = rng.lognormal(0, 1.5, (len(space.layers), 1))
    loss = scale * 4.0**-bits * rng.lognormal(0, 0.3, nbytes.shape)
    return (
        LayerTable(space, loss, "kl"),
        (LayerTable(space, nbytes, "bytes"), LayerTable(space, np.outer(n_weights, bits), "code_bits")),
    )


def wild_tables(rng, space):
    """Losses of any sign that need not fall, costs that tie and need not rise with bits."""
    shape = (len(space.layers), len(space.formats))
    loss = rng.normal(size=shape).round(int(rng.integers(1, 6)))
    costs = [rng.integers(0, 12, shape).astype(float) for _ in range(2)]
    return (
        LayerTable(space, loss, "kl"),
        (LayerTable(space, costs[0], "bytes"), LayerTable(space, costs[1], "code_bits")),
    )


def random_problem(rng, n_groups=5, n_formats=4, tables=realistic_tables, fraction=None):
    """One limit on bytes, `fraction` of the way from the smallest to the largest sum."""
    loss, costs = tables(rng, random_space(rng, n_groups, n_formats))
    grouped = costs[0].grouped
    smallest = grouped.min(axis=1).sum()
    largest = np.where(np.isfinite(grouped), grouped, 0.0).max(axis=1).sum()
    share = rng.random() if fraction is None else fraction
    return Problem(loss, costs, {"bytes": float(np.floor(smallest + share * (largest - smallest)))})
