"""Squared error of the weights: the data-free baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from bitfront.models.bank import WeightBank
from bitfront.models.gradients import errors
from bitfront.models.layers import get_weight
from bitfront.sensitivity.base import Estimator
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


@dataclass(frozen=True)
class WeightError(Estimator):
    """Squared Frobenius norm of the weight error: how far each matrix moves.

        entry = ||D||_F^2,    or relative:  ||D||_F^2 / ||W||_F^2,    D = Q_f(W) - W

    It knows nothing of what a matrix does.

    Cost: one pass over the weights, no forward.

    Prefer it when there is no text at all, or to judge the others by.

    Source: no paper, the data-free baseline; the relative form is t^2 of HIGGS (Malinovskii et al.
    2024, section 3).

    Args:
        relative: divide by the squared norm of the weight; layers of a group then combine by their
            maximum, because ratios do not add.
    """

    relative: bool = False

    needs: ClassVar[str] = "weights"

    def estimate(
        self,
        model: nn.Module,
        batches: torch.Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """The table; `batches` only enter its source."""
        values = np.zeros(space.allowed.shape)
        for row, layer in enumerate(space.layers):
            weight = get_weight(model, layer.name)
            norm = bank.source(layer.name, weight).square().sum().item()
            # A dead layer (all zeros) quantizes exactly: 0 / 1, not 0 / 0.
            scale = 1 / norm if self.relative and norm > 0 else 1.0
            for column, difference in errors(weight, space, bank, row):
                values[row, column] = difference.square().sum().item() * scale
            if progress:
                progress(row + 1, len(space.layers))
        return self.table(space, values, batches, bank, "max" if self.relative else "sum")
