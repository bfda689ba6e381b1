"""Squared error weighted by how salient the weights of its column group are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bitfront.errors import InvalidArgument
from bitfront.sensitivity.base import GramEstimator


@dataclass(frozen=True)
class Salience(GramEstimator):
    """Mean salience of each group of columns times the squared error within it.

        entry = sum over groups of S_g ||D_g||^2
        S_g   = mean over the group of w_ij^2 / [H^-1]_jj^2

    with H = E[x x^T] plus damping and D = Q(W) - W. Salience is made for groups within a layer,
    `of_groups` has it at that resolution: it grows with the square of the weights and of the
    inputs.

    Cost: one forward pass, one Gram matrix per distinct input, and a Cholesky inverse of each,
    cubic in its width.

    Prefer it only for groups within a layer: between layers of different scale it says little, see
    benchmarks/results/estimators.csv.

    Source: SliM-LLM (Huang et al. 2024, section 3.2), which gives groups of columns their bits by
    this salience of a weight.

    Args:
        group_size: columns of a group; a last one may be narrower.
        damping: share of the mean diagonal added to H.
        max_gram_gib: memory of the Gram matrices held at once; larger models take more passes.
    """

    group_size: int = 128
    damping: float = 0.01
    max_gram_gib: float = 2.0

    def __post_init__(self) -> None:
        if self.group_size < 1 or not self.damping > 0 or not self.max_gram_gib > 0:
            raise InvalidArgument(
                f"group_size is {self.group_size}, damping {self.damping}, max_gram_gib "
                f"{self.max_gram_gib}: give group_size >= 1 and the others above 0."
            )

    def entries(self, weight: Tensor, gram: Tensor, errors: Sequence[Tensor]) -> list[float]:
        """See `GramEstimator.entries`."""
        salience = self.of_groups(weight, gram)
        squares = (self._by_group(error.double().square().sum(dim=0)) for error in errors)
        return [float(torch.stack([x.sum() for x in parts]) @ salience) for parts in squares]

    def of_groups(self, weight: Tensor, gram: Tensor) -> Tensor:
        """Mean salience of each group of columns, float64 `[n_column_groups]`.

        Zero where the calibration text never reached the layer. Where groups of rows read inputs of
        their own, the mean over all rows.
        """
        grams = gram if gram.ndim == 3 else gram[None]
        by_rows = weight.double().reshape(len(grams), -1, weight.shape[1]).square().mean(dim=1)
        salient = torch.stack([self._salient(*x) for x in zip(by_rows, grams, strict=True)])
        return torch.stack([part.mean() for part in self._by_group(salient.mean(dim=0))])

    def _salient(self, columns: Tensor, gram: Tensor) -> Tensor:
        """Salience of each column, `[n_columns]`, from its mean squared weight."""
        mean = gram.diagonal().mean()
        if not mean > 0:
            return torch.zeros_like(columns)
        damped = gram.double() + self.damping * mean * torch.eye(len(gram), device=gram.device)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped)).diagonal()
        return columns / inverse.square()

    def _by_group(self, columns: Tensor) -> tuple[Tensor, ...]:
        return torch.split(columns, self.group_size)
