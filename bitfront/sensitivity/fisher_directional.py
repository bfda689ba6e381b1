"""Geometric mean of the Fisher diagonal and the Fisher form along the rounding error itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

from bitfront.errors import InvalidArgument
from bitfront.models.accumulators import Accumulator, LayerView
from bitfront.models.gradients import sequence_groups
from bitfront.models.tasks import CausalText, task_of
from bitfront.sensitivity.base import LabelEstimator
from bitfront.space import SearchSpace


@dataclass(frozen=True)
class FisherDirectional(LabelEstimator):
    """Fisher information along each rounding error, steadied by its diagonal.

        diagonal^(1 - share) * directional^share

        diagonal:     1/2 sum_ij F_ij D_ij^2, the entry of `fisher`
        directional:  1/2 sum over pieces of <g_piece, D>^2 / number of tokens

    with D = Q(W) - W and g_piece the gradient of a sequence's summed negative log-likelihood that
    flows through the layer at `piece` consecutive tokens. What is judged as a whole, such as an
    image, is one piece: one loss flows through all its positions. The diagonal takes the errors of
    different weights for uncorrelated, which gives it little noise and a bias of its own for each
    layer. The directional form keeps the correlations within the layer, but rests on one squared
    number a piece. The mean of their logarithms shrinks the noisy one towards the biased one.

    How it ranks on a real model beside `fisher` and `fisher_output`:
    benchmarks/results/estimators.csv.

    Cost: one forward and backward pass over the text for all formats, some tenths more than
    `fisher`.

    Prefer it by default: it keeps correlations within a layer that `fisher` takes for zero.

    Source: ours; its parts are the diagonal of Kim et al., SqueezeLLM (2024), section 4.1, and the
    quadratic form of Amari, Natural Gradient (1998), section 2.

    Args:
        share: weight of the directional form, 0 to 1.
        piece: tokens of a piece of text; the last of a sequence may be shorter.
        labels: `"model"` draws next tokens from the model's own prediction (the true Fisher);
            `"text"` takes the text's (the empirical one).
        n_draws: backward passes per sequence with fresh labels; more give less noise.
        seed: of the drawn labels.
    """

    share: float = 0.5
    piece: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share <= 1 or self.piece < 1:
            raise InvalidArgument(
                f"share is {self.share}, piece {self.piece}: give a share from 0 to 1 and a piece "
                "of at least 1 token."
            )

    def accumulator(self, model: nn.Module, space: SearchSpace) -> Accumulator:
        """See `PassEstimator.accumulator`."""
        is_text = isinstance(task_of(model), CausalText)
        return _Sums(space, self.share, self.piece if is_text else None)


class _Sums(Accumulator):
    def __init__(self, space: SearchSpace, share: float, piece: int | None) -> None:
        self.diagonal, self.directional = (
            np.zeros(space.allowed.shape),
            np.zeros(space.allowed.shape),
        )
        self.share, self.piece = share, piece

    def layer(self, view: LayerView) -> None:
        flat = view.errors.flatten(1)
        piece = self.piece or view.inputs.shape[1]
        squares, along = _forms(view.inputs, view.slopes, flat, piece)
        entries = view.row, view.columns
        self.diagonal[entries] += (flat.square() @ squares).double().cpu().numpy()
        self.directional[entries] += along.double().cpu().numpy()

    def values(self, n_scored: int) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = self.diagonal ** (1 - self.share) * self.directional**self.share
        return mean / (2 * n_scored)


def _forms(
    inputs: Tensor, gradients: Tensor, differences: Tensor, piece: int
) -> tuple[Tensor, Tensor]:
    """Squared sequence gradients `[n_weights]`, and squared products of pieces by format.

    Args:
        inputs: `[n, length, in_features]`, or in groups.
        gradients: `[n, length, out_features]`.
        differences: `[n_formats, n_weights]`, float32.
        piece: tokens of a piece.
    """
    short = -inputs.shape[1] % piece  # tokens of zeros add nothing
    inputs, gradients = (
        pad(x.float(), (0, 0) * (x.ndim - 2) + (0, short)) for x in (inputs, gradients)
    )
    squares = differences.new_zeros(differences.shape[1])
    along = differences.new_zeros(len(differences))
    for index in range(len(inputs)):
        x, g = (v[index].reshape(-1, piece, *v.shape[2:]) for v in (inputs, gradients))
        whole = torch.zeros_like(squares)
        for group in sequence_groups(x, g):
            of_pieces = group.flatten(1)
            along += (of_pieces @ differences.T).square_().sum(dim=0)
            whole += of_pieces.sum(dim=0)
        squares += whole.square_()
    return squares, along
