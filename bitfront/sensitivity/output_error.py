"""Squared error of each layer's output on the calibration text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfront.errors import InvalidArgument
from bitfront.models.bank import WeightBank
from bitfront.sensitivity._inputs import input_energy
from bitfront.sensitivity.base import GramEstimator
from bitfront.space import SearchSpace


@dataclass(frozen=True)
class OutputError(GramEstimator):
    """Mean squared error of the layer's output, summed over its features.

        entry = E ||D x||^2 = tr(D H D^T),    H = E[x x^T],    D = Q_f(W) - W

    It sees outlier inputs, but not what later layers do with the error; relative errors compare
    layers of different scale. Of a pair with inputs the error ||W (Q(x) - x)||^2 is added.

    Cost: one forward pass, one Gram matrix per distinct input, and a matrix product per entry.

    Prefer it where gradients are out of reach and inputs have outliers; over a whole menu it ranks
    below `weight_error`, see benchmarks/results/estimators.csv.

    Source: the proxy that GPTQ and OBQ minimize (Frantar et al. 2022, section 3).

    Args:
        relative: divide by E ||W x||^2; layers of a group then combine by their maximum.
        max_gram_gib: memory of the Gram matrices held at once; larger models take more passes.
    """

    relative: bool = False
    max_gram_gib: float = 2.0

    judges_inputs_by: ClassVar[str] = "input_energy"

    def __post_init__(self) -> None:
        if not self.max_gram_gib > 0:
            raise InvalidArgument(f"max_gram_gib is {self.max_gram_gib}: give a positive number.")

    @property
    def reduction(self) -> str:  # type: ignore[override]
        """How layers of a group combine."""
        return "max" if self.relative else "sum"

    def input_losses(
        self,
        model: nn.Module,
        batches: Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float64]:
        """See `Estimator.input_losses`: exact, but for the product of both errors."""
        return input_energy(model, batches, space, bank, self.relative)

    def entries(self, weight: Tensor, gram: Tensor, errors: Sequence[Tensor]) -> list[float]:
        """See `GramEstimator.entries`."""
        energy = _energy(weight, gram) if self.relative else 0.0
        scale = 1 / energy if energy > 0 else 1.0
        return [_energy(error, gram) * scale for error in errors]


def _energy(weight: Tensor, gram: Tensor) -> float:
    # Rounding can push a vanishing sum of products just below zero; NaN must stay NaN.
    by_group = weight.reshape(*gram.shape[:-2], -1, weight.shape[1])
    return ((by_group @ gram) * by_group).sum().clamp(min=0).item()
