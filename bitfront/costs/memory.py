"""Exact memory of each layer in each format."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitfront.costs.base import Cost
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


@dataclass(frozen=True)
class Memory(Cost):
    """Bytes on disk and code bits of each layer, from format arithmetic alone.

    Tables: `bytes` (codes, scales, zero points, padding, as the packed checkpoint stores them)
    and `code_bits` (code width times weights, what papers average as "bits").
    """

    def cost(self, space: SearchSpace) -> tuple[LayerTable, ...]:
        """The two tables of a space."""
        per_shape = {
            layer.shape: (
                [f.nbytes(layer.shape) if f.fits(layer.shape) else 0 for f in space.formats],
                [f.code_bits * layer.n_weights for f in space.formats],
            )
            for layer in space.layers
        }
        return tuple(
            LayerTable(
                space,
                np.array([per_shape[x.shape][index] for x in space.layers], dtype=np.float64),
                quantity,
                source=repr(self),
            )
            for index, quantity in enumerate(("bytes", "code_bits"))
        )
