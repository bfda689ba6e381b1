"""Mean and spread of the top Hessian eigenvalue over parts of the text, times squared error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from bitfront.errors import InvalidArgument
from bitfront.models.bank import WeightBank
from bitfront.models.curvature import top_eigenvalues
from bitfront.sensitivity.base import Estimator, scaled_errors, uncertainty
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


@dataclass(frozen=True)
class HessianSpread(Estimator):
    """Mean plus standard deviation of a layer's top eigenvalue over shards, times squared error.

        (|mean lambda| + sd lambda) * ||D||^2

    with lambda the largest eigenvalue of the layer's Hessian on each shard of the sequences and
    D = Q(W) - W: a layer whose curvature differs from text to text is taken for more sensitive than
    its mean says. Not divided by the number of weights, as in the paper. It only ranks.

    Cost: `n_shards` times that of `hessian_top` on a shard.

    Prefer it to `hessian_top` where curvature differs much from text to text.

    Source: Shen et al., Q-BERT (2020), section 3.1.

    Args:
        n_shards: parts of the sequences; no more than there are sequences.
        n_iterations: of the power iteration of each shard.
        max_sequences: how many of the sequences are used.
        n_sharing: layers that share a Hessian-vector product, see `top_eigenvalues`.
        seed: of start vectors and signs; each shard has its own.
    """

    n_shards: int = 4
    n_iterations: int = 6
    max_sequences: int = 8
    n_sharing: int = 2
    seed: int = 0

    needs: ClassVar[str] = "gradients"

    def __post_init__(self) -> None:
        if min(self.n_shards, self.n_iterations, self.max_sequences, self.n_sharing) < 1:
            raise InvalidArgument(
                f"n_shards is {self.n_shards}, n_iterations {self.n_iterations}, max_sequences "
                f"{self.max_sequences}, n_sharing {self.n_sharing}: give at least 1 each."
            )

    def looked_at(self, model: nn.Module, batches: Tensor) -> Tensor:
        """Some of the sequences."""
        return batches[: self.max_sequences]

    def estimate(
        self,
        model: nn.Module,
        batches: Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """See `Estimator.estimate`."""
        tokens = self.looked_at(model, batches)
        shards = tokens.tensor_split(min(self.n_shards, len(tokens)))
        found = np.array(
            [
                top_eigenvalues(
                    *(model, shard, space, self.n_iterations, self.n_sharing, self.seed + index),
                    partial(_shard_done, progress, index, len(shards)),
                ).mean
                for index, shard in enumerate(shards)
            ]
        )
        mean, spread = found.mean(axis=0), found.std(axis=0)
        values = scaled_errors(model, space, bank, np.abs(mean) + spread)
        n = len(shards)
        error = found.std(axis=0, ddof=1) / n**0.5 if n > 1 else np.full(len(mean), np.inf)
        note = uncertainty(space, mean, error, "the top eigenvalue")
        return self.table(space, values, tokens, bank, note=note)


def _shard_done(
    progress: Callable[[int, int], None] | None, index: int, n_shards: int, done: int, total: int
) -> None:
    if progress is not None:
        progress((index * total + done) * 100 // total, n_shards * 100)
