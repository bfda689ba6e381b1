"""How many weights of a block are far from their mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from bitfront.errors import InvalidArgument
from bitfront.models.bank import WeightBank
from bitfront.models.gradients import errors
from bitfront.models.layers import get_weight
from bitfront.sensitivity._block_scores import by_layer, relative_errors
from bitfront.sensitivity.base import Estimator
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


@dataclass(frozen=True)
class ZscoreDensity(Estimator):
    """Share of a block's weights with a high z-score, times each layer's relative error.

        entry = share of weights with (w - mean) / sd > threshold  *  ||D||^2 / ||W||^2

    with mean and standard deviation over all searched weights of the block and D = Q(W) - W. The
    paper ranks whole blocks; the relative error makes formats and layers differ. Layers outside the
    blocks get the mean score. Trained weights are so nearly Gaussian that the share hardly differs
    between blocks: 15.0 to 15.7 % on the tiny Llama of the tests, least in the one that loses most.

    Cost: one pass over the weights, no text.

    Prefer it only where blocks differ in that share: else it ranks as the relative error alone
    does, see benchmarks/results/estimators.csv.

    Source: the Z-score Distribution of Dumitru et al., Layer-Wise Quantization (2024), section 3.

    Args:
        threshold: z-score above which a weight counts.
    """

    threshold: float = 1.0

    needs: ClassVar[str] = "weights"

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 10:
            raise InvalidArgument(f"threshold is {self.threshold}: give 0 <= threshold < 10.")

    def estimate(
        self,
        model: nn.Module,
        batches: torch.Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """The table; `batches` only enter its source."""
        n_blocks = max((layer.block for layer in space.layers), default=-1) + 1
        scores = np.array(
            [self._score(model, space, bank, block) for block in range(n_blocks)] or [1.0]
        )
        values = np.zeros(space.allowed.shape)
        for row, (layer, score) in enumerate(
            zip(space.layers, by_layer(space, scores), strict=True)
        ):
            weight = get_weight(model, layer.name)
            found = torch.stack([error for _, error in errors(weight, space, bank, row)])
            quantized = bank.source(layer.name, weight)
            values[row, space.allowed[row]] = score * relative_errors(quantized, found)
            if progress:
                progress(row + 1, len(space.layers))
        return self.table(space, values, batches, bank)

    def _score(self, model: nn.Module, space: SearchSpace, bank: WeightBank, block: int) -> float:
        names = [layer.name for layer in space.layers if layer.block == block]
        if not names:
            return 0.0
        quantized = [bank.source(name, get_weight(model, name)) for name in names]
        weights = torch.cat([weight.flatten() for weight in quantized])
        spread = weights.std(correction=0)
        above = weights - weights.mean() > self.threshold * spread
        return float(above.double().mean()) if spread > 0 else 0.0
