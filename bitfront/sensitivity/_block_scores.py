"""Scores of whole blocks as tables: a block's score times each layer's relative weight error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bitfront.models.accumulators import Accumulator, LayerView
from bitfront.space import SearchSpace

Floats = NDArray[np.float64]


def relative_errors(weight: Tensor, errors: Tensor) -> Floats:
    """||D||_F^2 / ||W||_F^2 of each format, float64 `[n_columns]`; 0 for a weight of zeros.

    Args:
        weight: what is quantized, `[out_features, in_features]`.
        errors: D = Q(W) - W, float32 `[n_columns, out_features, in_features]`.
    """
    norm = weight.float().square().sum().item()
    squares = errors.square().sum(dim=(1, 2)).double().cpu().numpy()
    return np.asarray(squares / norm if norm > 0 else squares)


def by_layer(space: SearchSpace, scores: Floats) -> Floats:
    """The score of each layer's block, `[n_layers]`; outside the blocks the mean of all blocks."""
    blocks = np.array([layer.block for layer in space.layers])
    return np.asarray(np.where(blocks >= 0, scores[np.maximum(blocks, 0)], scores.mean()))


class BlockScores(Accumulator):
    """Relative weight errors of the layers, and sums over tokens for each block.

    Args:
        space: rows and columns.
        n_blocks: transformer blocks of the model.
    """

    def __init__(self, space: SearchSpace, n_blocks: int) -> None:
        self.space = space
        self.sums, self.counts = np.zeros(n_blocks), np.zeros(n_blocks)
        self._errors: dict[int, Floats] = {}

    def layer(self, view: LayerView) -> None:
        """Keep the relative errors, which are the same in every pass."""
        if view.row not in self._errors:
            quantized = view.bank.source(self.space.layers[view.row].name, view.weight)
            self._errors[view.row] = relative_errors(quantized, view.errors)

    def scores(self) -> Floats:
        """One per block; of those that no token reached, 0."""
        return self.sums / np.maximum(self.counts, 1)

    def values(self, n_scored: int) -> Floats:
        """Scores times errors, `[n_layers, n_formats]`; rows that no token reached are 0."""
        table = np.zeros(self.space.allowed.shape)
        score = by_layer(self.space, self.scores())
        for row, errors in self._errors.items():
            table[row, self.space.allowed[row]] = score[row] * errors
        return table
