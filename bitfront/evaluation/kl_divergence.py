"""KL divergence from the unquantized model."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bitfront.evaluation.base import Metric, Values, predictions, standard_error
from bitfront.models.reference import Answers


@dataclass(frozen=True)
class KlDivergence(Metric):
    """KL(unquantized || quantized) in nats per token, with its standard error over sequences.

    The number that searches minimize: it sees every change of the predictions, where perplexity
    lets gains on some tokens hide losses on others. Computed on the top K of the unquantized model
    and the tail mass (`Reference.kl`).
    """

    def per_token(self, logits: torch.Tensor, reference: Answers, index: int) -> torch.Tensor:
        """KL of each token."""
        return predictions(reference).kl(logits, index)

    def reduce(self, means: Values) -> dict[str, float]:
        """`kl` and `kl_stderr`."""
        return {"kl": float(means.mean()), "kl_stderr": standard_error(means)}
