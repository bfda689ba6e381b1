"""First and second order terms of the loss in the weight error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bitfront.errors import InvalidArgument
from bitfront.models.accumulators import Accumulator, LayerView
from bitfront.models.gradients import weight_gradients
from bitfront.sensitivity.base import LabelEstimator
from bitfront.space import SearchSpace

_ORDERS = ("first", "second", "both")


@dataclass(frozen=True)
class Taylor(LabelEstimator):
    """Taylor expansion of the text's loss in the weight error, to second order.

        first:   <g_W, D>                 g_W: gradient of the mean loss
        second:  1/2 sum_ij F_ij D_ij^2   the entry of `fisher` with the text's labels
        both:    their sum

    with D = Q(W) - W. The paper drops the first term because a trained model's gradient vanishes;
    it does not on another text. The first term is signed: errors that happen to lower the loss of
    this text count as gains. KL against the unquantized model has no first term, so for labels
    drawn from the model its mean is zero and `first` is noise.

    Cost: one forward and backward pass for all formats.

    Prefer it only to learn how much of a loss rise is first order; else take `fisher` or
    `fisher_directional`.

    Source: LeCun et al., Optimal Brain Damage (1989), eq. 3.

    Args:
        order: which terms.
        labels: `"text"` takes the text's next tokens, `"model"` draws them from its prediction.
        n_draws: backward passes per sequence with fresh labels.
        seed: of the drawn labels.
    """

    labels: str = "text"
    order: str = "both"

    in_nats: ClassVar[bool] = True
    non_negative: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in _ORDERS:
            raise InvalidArgument(f"Unknown order {self.order!r}: use {', '.join(_ORDERS)}.")

    def accumulator(self, model: nn.Module, space: SearchSpace) -> Accumulator:
        """See `PassEstimator.accumulator`."""
        return _Terms(space, self.order)


class _Terms(Accumulator):
    def __init__(self, space: SearchSpace, order: str) -> None:
        self.first, self.second = np.zeros(space.allowed.shape), np.zeros(space.allowed.shape)
        self.order = order

    def layer(self, view: LayerView) -> None:
        if self.order != "second":
            gradient = weight_gradients(view.inputs, view.slopes).sum(dim=0)
            products = (gradient * view.errors).sum(dim=(1, 2))
            self.first[view.row, view.columns] += products.double().cpu().numpy()
        if self.order != "first":
            products = (view.squares * view.errors.square()).sum(dim=(1, 2))
            self.second[view.row, view.columns] += products.double().cpu().numpy() / 2

    def values(self, n_scored: int) -> NDArray[np.float64]:
        return (self.first + self.second) / n_scored
