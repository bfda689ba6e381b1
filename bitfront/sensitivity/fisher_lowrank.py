"""Fisher information of the layer's output, diagonal plus low rank, along the output error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfront.errors import InvalidArgument
from bitfront.models.accumulators import Accumulator, LayerView
from bitfront.models.matrices import products
from bitfront.sensitivity.base import LabelEstimator
from bitfront.space import SearchSpace

_N_ITERATIONS = 3


@dataclass(frozen=True)
class FisherLowrank(LabelEstimator):
    """Output errors measured by the Fisher matrix of the layer's output, diagonal plus low rank.

        entry = 1/2 E[e^T F e],   F = E[g g^T] ~ V S V^T + diag(F - V S V^T),   e = D x

    with g the gradient at the layer's output, D = Q(W) - W, V and S the leading eigenvectors and
    eigenvalues of F: the form keeps the correlations between outputs that a diagonal drops. F and
    the errors are means of their own, so it does not see which tokens have both a large gradient
    and a large error, as `fisher_output` does. F is that of one pass (some 1,000 tokens), V comes
    from three steps of subspace iteration.

    Cost: one forward and backward pass for all formats, and a replay of the layer for each.

    Prefer it to `fisher` where `bitfront compare` says so: it is among the first on stories15M (tau
    0.96) and below `weight_error` on SmolLM2-135M (0.81 against 0.86). `fisher_output` also sees
    which tokens matter.

    Source: the diagonal-plus-low-rank form of FIMA-Q (2025).

    Args:
        rank: eigenvectors kept.
        labels: `"model"` draws next tokens from the model's own prediction (the true Fisher);
            `"text"` takes the text's (the empirical one).
        n_draws: backward passes per sequence with fresh labels; more give less noise.
        seed: of the drawn labels, and of where the subspace iteration starts.
    """

    rank: int = 8

    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise InvalidArgument(f"rank is {self.rank}: give at least 1.")

    def accumulator(self, model: nn.Module, space: SearchSpace) -> Accumulator:
        """See `PassEstimator.accumulator`."""
        return _Forms(space, self.rank, self.seed)


class _Forms(Accumulator):
    def __init__(self, space: SearchSpace, rank: int, seed: int) -> None:
        self.sums = np.zeros(space.allowed.shape)
        self.rank, self.seed = rank, seed

    def layer(self, view: LayerView) -> None:
        gradients = view.slopes.flatten(0, 1).float()
        # A text's last token has no loss, and an expert sees few of the positions.
        n = max(int(gradients.any(dim=1).sum()), 1)
        vectors, values = leading(gradients, self.rank, self.seed)
        rest = gradients.square().sum(dim=0) - vectors.square() @ values
        rest = rest.clamp(min=0)
        inputs = view.inputs.float()
        for column, error in zip(view.columns, view.errors, strict=True):
            outputs = products(inputs, error).flatten(0, 1)
            along = (outputs @ vectors).square().sum(dim=0) @ values
            own = outputs.square().sum(dim=0) @ rest
            self.sums[view.row, column] += float(along + own) / n

    def values(self, n_scored: int) -> NDArray[np.float64]:
        return self.sums / (2 * n_scored)


def leading(rows: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvectors `[n_columns, rank]` of rows^T rows and their eigenvalues `[rank]`.

    Args:
        rows: float32 `[n_rows, n_columns]`.
        rank: how many; at most the number of columns are given.
        seed: of the start of the subspace iteration.
    """
    generator = torch.Generator().manual_seed(seed)
    width = min(2 * rank, rows.shape[1])
    basis = torch.randn(rows.shape[1], width, generator=generator).to(rows.device)
    for _ in range(_N_ITERATIONS):
        basis = torch.linalg.qr(rows.T @ (rows @ basis)).Q
    projected = rows @ basis
    values, turns = torch.linalg.eigh(projected.T @ projected)
    kept = min(rank, width)
    return (basis @ turns)[:, -kept:], values[-kept:].clamp(min=0)
