"""Squared error weighted by the mean square of each input channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfront.models.accumulators import Accumulator, LayerView
from bitfront.models.bank import WeightBank
from bitfront.models.gradients import errors
from bitfront.models.layers import get_weight
from bitfront.quantizers.base import by_row
from bitfront.sensitivity.base import PassEstimator
from bitfront.space import SearchSpace


@dataclass(frozen=True)
class ActivationAware(PassEstimator):
    """Mean square of each input channel times the squared error of its weights.

        entry = sum_ij E[x_j^2] D_ij^2  ( + sum_i (sum_j E[x_j] D_ij)^2  with bias )

    with D = Q(W) - W: `output_error` with the input channels taken for uncorrelated. The channels'
    magnitude is what AWQ scales by and what llama.cpp's importance matrix holds; the second form
    adds what the channels' means do to the output on average. Like `output_error`, it does not know
    what later layers do with the error.

    Cost: one forward pass and two numbers per input channel, where a Gram matrix would take their
    square.

    Prefer it to `output_error` on wide layers.

    Source: AWQ (Lin et al. 2023, section 3); llama.cpp's importance matrix.

    Args:
        bias: add the squared mean error of each output.
    """

    bias: bool = False

    needs: ClassVar[str] = "activations"

    def accumulator(self, model: nn.Module, space: SearchSpace) -> Accumulator:
        """See `PassEstimator.accumulator`."""
        return _Moments(model, space, self.bias)


class _Moments(Accumulator):
    """Sums of inputs and of their squares, float64 `[in_features]` a layer, or of each group."""

    def __init__(self, model: nn.Module, space: SearchSpace, bias: bool) -> None:
        self.model, self.space, self.bias = model, space, bias
        self.sums: dict[int, Tensor] = {}
        self.squares: dict[int, Tensor] = {}
        self.counts: dict[int, int] = {}
        self.bank: WeightBank | None = None

    def layer(self, view: LayerView) -> None:
        rows = view.inputs.flatten(0, 1).double()
        self.bank = view.bank
        self.sums[view.row] = self.sums.get(view.row, 0) + rows.sum(dim=0)
        self.squares[view.row] = self.squares.get(view.row, 0) + rows.square().sum(dim=0)
        self.counts[view.row] = self.counts.get(view.row, 0) + len(rows)

    def values(self, n_scored: int) -> NDArray[np.float64]:
        table = np.zeros(self.space.allowed.shape)
        for row, count in self.counts.items():
            assert self.bank is not None
            weight = get_weight(self.model, self.space.layers[row].name)
            means, squares = (
                by_row(x[row] / max(count, 1), len(weight)) for x in (self.sums, self.squares)
            )
            for column, error in errors(weight, self.space, self.bank, row):
                exact = error.double()
                table[row, column] = float((exact.square() * squares).sum())
                if self.bias:
                    table[row, column] += float((exact * means).sum(dim=1).square().sum())
        return table
