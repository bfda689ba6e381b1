"""Squared error of each layer's output on the calibration text."""

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
from bitfront.models.statistics import InputGrams
from bitfront.sensitivity.base import Estimator
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


@dataclass(frozen=True)
class OutputError(Estimator):
    """Mean squared error of the layer's output, summed over its features.

        entry = E ||D x||^2 = tr(D H D^T),    H = E[x x^T],    D = Q_f(W) - W

    The proxy that GPTQ and OBQ minimize (Frantar et al. 2022, section 3). Cost: one forward pass,
    one Gram matrix per distinct input, and a matrix product per entry. It sees outlier inputs, but
    not what later layers do with the error; relative errors compare layers of different scale.

    Args:
        relative: divide by E ||W x||^2; layers of a group then combine by their maximum.
        max_gram_gib: memory of the Gram matrices held at once; larger models take more passes.
    """

    relative: bool = False
    max_gram_gib: float = 2.0

    needs: ClassVar[str] = "activations"

    def __post_init__(self) -> None:
        if not self.max_gram_gib > 0:
            raise InvalidArgument(f"max_gram_gib is {self.max_gram_gib}: give a positive number.")

    def estimate(
        self,
        model: nn.Module,
        batches: torch.Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """The table, from one forward pass over `batches`."""
        columns = {layer.name: layer.shape[1] for layer in space.layers}
        grams = InputGrams(model, batches, columns, int(self.max_gram_gib * 2**30))
        values = np.zeros(space.allowed.shape)
        for row, layer in enumerate(space.layers):
            weight, gram = get_weight(model, layer.name), grams[layer.name]
            energy = _energy(weight.float(), gram)
            scale = 1 / energy if self.relative and energy > 0 else 1.0
            for column, difference in errors(weight, space, bank, row):
                values[row, column] = _energy(difference, gram) * scale
            if progress:
                progress(row + 1, len(space.layers))
        return self.table(space, values, batches, bank, "max" if self.relative else "sum")


def _energy(weight: torch.Tensor, gram: torch.Tensor) -> float:
    # Rounding can push a vanishing sum of products just below zero; NaN must stay NaN.
    return ((weight @ gram) * weight).sum().clamp(min=0).item()
