"""Scores of experts that calibration hardly visits, from those of the others of their block."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bitfront.experts import TokensSeen
from bitfront.models.bank import WeightBank
from bitfront.models.gradients import errors
from bitfront.models.layers import get_weight
from bitfront.table import LayerTable

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]


def imputed(table: LayerTable, seen: TokensSeen, model: nn.Module, bank: WeightBank) -> LayerTable:
    """The table with the rows of experts that saw too few tokens replaced, and a note that says so.

        score = ||D||^2 * median over the seen experts of (score / ||D||^2)

    with D = Q(W) - W, for each format, over the layers of the same kind in the same block; over
    those of all blocks where the block has none that was seen. Where no expert was seen at all, or
    no other errs in a format, rows stay as they are. See `TokensSeen.least` for how few is too few.

    Args:
        table: of an estimator that uses text.
        seen: tokens of each expert in that text.
        model: the unquantized model.
        bank: the quantized weights.
    """
    layers = table.space.layers
    unseen = [row for row, layer in enumerate(layers) if seen.is_unseen(layer.name)]
    if not unseen:
        return table
    squares = np.full(table.values.shape, np.nan)
    kinds = {layers[row].kind for row in unseen}
    judged = [row for row, layer in enumerate(layers) if layer.kind in kinds]
    for row in judged:
        for column, error in errors(get_weight(model, layers[row].name), table.space, bank, row):
            squares[row, column] = float(error.square().sum())
    values = table.values.copy()
    for row in unseen:
        alike = [r for r in judged if r not in unseen and layers[r].kind == layers[row].kind]
        here = [r for r in alike if layers[r].block == layers[row].block] or alike
        rate = _medians(table.values[here], squares[here])
        found = squares[row] * rate
        values[row] = np.where(np.isfinite(found), found, table.values[row])
    of = f"{seen.n_unseen} of {seen.n_experts} experts saw too few tokens: their scores are imputed"
    logger.warning("%s.", of)
    return replace(table, values=values, note="; ".join(filter(None, (table.note, of))))


def _medians(scores: Floats, squares: Floats) -> Floats:
    """Median over rows of `scores / squares`, `[n_formats]`; NaN where no row has a square."""
    rates = np.divide(scores, squares, out=np.full(scores.shape, np.nan), where=squares > 0)
    known = np.isfinite(rates)
    columns = [rates[known[:, c], c] for c in range(scores.shape[1])]
    return np.array([np.median(column) if column.size else np.nan for column in columns])
