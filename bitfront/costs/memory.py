"""Exact memory of each layer in each format."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitfront.costs.base import Cost
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


@dataclass(frozen=True)
class Memory(Cost):
    """Bytes and code bits of each layer, from format arithmetic alone.

    Tables: `bytes` (codes, scales, zero points, padding, as the packed checkpoint stores them)
    and `code_bits` (code width times weights, what papers average as "bits"). A searched KV cache
    adds its bytes at the batch and context of the study to `bytes`; `weight_bytes` is then the
    table without it.
    """

    def cost(self, space: SearchSpace) -> tuple[LayerTable, ...]:
        """The tables of a space."""
        sizes: dict[tuple[object, ...], list[tuple[int, float]]] = {}
        nbytes, code_bits = np.zeros((2, *space.allowed.shape))
        for row, layer in enumerate(space.layers):
            key = (layer.shape, layer.cache)
            if key not in sizes:
                sizes[key] = [
                    (
                        space.nbytes(layer, f) if layer.cache or f.fits(layer.shape) else 0,
                        0 if layer.cache else f.n_code_bits(layer.shape),
                    )
                    for f in space.formats
                ]
            nbytes[row], code_bits[row] = zip(*sizes[key], strict=True)
        n_weights = np.array([layer.n_weights for layer in space.layers])
        tables = {"bytes": nbytes, "code_bits": code_bits}
        if space.kv_cache is not None:
            tables["weight_bytes"] = np.where(n_weights[:, None] > 0, nbytes, 0.0)
        made = (LayerTable(space, v, quantity, repr(self)) for quantity, v in tables.items())
        return tuple(made)
