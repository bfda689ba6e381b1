"""Squared inner products of output gradients and output errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfront.errors import InvalidArgument
from bitfront.models.accumulators import Accumulator, LayerView
from bitfront.models.gradients import sequence_groups
from bitfront.models.matrices import products
from bitfront.sensitivity.base import LabelEstimator
from bitfront.space import SearchSpace


@dataclass(frozen=True)
class FisherOutput(LabelEstimator):
    """Squared products of a layer's output gradient and its output error: Fisher with correlations.

    With D = Q(W) - W, x_t a token's input and g_t the gradient of the sequence's summed negative
    log-likelihood at the layer's output, an entry is 1 / (2 tokens) times the sum of

        element:   over tokens and outputs     (g_to (D x_t)_o)^2
        token:     over tokens                 (sum_o g_to (D x_t)_o)^2
        sequence:  over sequences              (sum_t sum_o g_to (D x_t)_o)^2  =  <g_W, D>^2

    Each squares a longer sum, so it keeps correlations the one before takes for zero. `sequence`
    with drawn labels is an unbiased estimate of the whole layer's Gauss-Newton form 1/2 d^T F d,
    but rests on one squared number a sequence: its relative noise is sqrt(2 / (n_sequences
    n_draws)), so give it many short sequences or draws.

    Cost: one forward and backward pass for all formats; element and token replay the layer for each
    format, sequence does not.

    Prefer it to `fisher` where errors within a layer are correlated, to `fisher_lowrank` where it
    matters which tokens they hit.

    Source: `element` is the gradient score of NVIDIA ModelOpt's auto_quantize; the longer sums are
    ours.

    Args:
        resolution: what is summed before squaring.
        labels: `"model"` draws next tokens from the model's own prediction (the true Fisher);
            `"text"` takes the text's (the empirical one).
        n_draws: backward passes per sequence with fresh labels; more give less noise.
        seed: of the drawn labels.
    """

    resolution: str = "token"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resolution not in _SUMS:
            raise InvalidArgument(
                f"Unknown resolution {self.resolution!r}: use {', '.join(_SUMS)}."
            )

    def accumulator(self, model: nn.Module, space: SearchSpace) -> Accumulator:
        """See `PassEstimator.accumulator`."""
        return _Sums(space, self.resolution)


class _Sums(Accumulator):
    def __init__(self, space: SearchSpace, resolution: str) -> None:
        self.sums = np.zeros(space.allowed.shape)
        self.squared = _SUMS[resolution]

    def layer(self, view: LayerView) -> None:
        sums = self.squared(view.inputs, view.slopes, view.errors)
        self.sums[view.row, view.columns] += sums.double().cpu().numpy()

    def values(self, n_scored: int) -> NDArray[np.float64]:
        return self.sums / (2 * n_scored)


def _element(inputs: Tensor, gradients: Tensor, differences: Tensor) -> Tensor:
    sums = [
        (products(inputs, d.to(inputs.dtype)) * gradients).float().square_().sum()
        for d in differences
    ]
    return torch.stack(sums)


def _token(inputs: Tensor, gradients: Tensor, differences: Tensor) -> Tensor:
    sums = [
        (products(inputs, d.to(inputs.dtype)) * gradients).float().sum(dim=-1).square_().sum()
        for d in differences
    ]
    return torch.stack(sums)


def _sequence(inputs: Tensor, gradients: Tensor, differences: Tensor) -> Tensor:
    flat = differences.flatten(1)
    sums = flat.new_zeros(len(flat))
    for group in sequence_groups(inputs, gradients):
        sums += (group.flatten(1) @ flat.T).square_().sum(dim=0)
    return sums


_SUMS = {"element": _element, "token": _token, "sequence": _sequence}
