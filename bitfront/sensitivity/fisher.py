"""Squared gradients times squared error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bitfront.models.accumulators import Accumulator, LayerView
from bitfront.sensitivity.base import LabelEstimator
from bitfront.space import SearchSpace


@dataclass(frozen=True)
class Fisher(LabelEstimator):
    """Squared weight gradients times squared weight errors: the diagonal of the Fisher information.

        1/2 sum_ij F_ij D_ij^2        F_ij = sum over sequences of g_ij^2 / number of tokens

    with D = Q(W) - W and g the gradient of a sequence's summed negative log-likelihood. Gradients
    of different tokens are uncorrelated (exactly for drawn labels, nearly for the text's), so the
    square of their sum estimates the sum of their squares: F is per token, entries are in nats.
    Squaring the gradient of a whole batch instead would grow with the batch.

    Cost: one forward and backward pass over the text whatever the number of formats, and memory for
    one pass: F itself is never stored.

    Prefer it as the standard baseline; it is cheaper than `hessian_top` and `hessian_trace`.

    Source: LeCun et al., Optimal Brain Damage (1989), eq. 4; Kim et al., SqueezeLLM (2024),
    section 4.1.

    Args:
        labels: `"model"` draws next tokens from the model's own prediction (the true Fisher);
            `"text"` takes the text's (the empirical one).
        n_draws: backward passes per sequence with fresh labels; more give less noise.
        seed: of the drawn labels.
    """

    def accumulator(self, model: nn.Module, space: SearchSpace) -> Accumulator:
        """See `PassEstimator.accumulator`."""
        return _Sums(space)


class _Sums(Accumulator):
    def __init__(self, space: SearchSpace) -> None:
        self.sums = np.zeros(space.allowed.shape)

    def layer(self, view: LayerView) -> None:
        for column, error in zip(view.columns, view.errors, strict=True):
            self.sums[view.row, column] += float((view.squares * error.square()).sum())

    def values(self, n_scored: int) -> NDArray[np.float64]:
        return self.sums / (2 * n_scored)
