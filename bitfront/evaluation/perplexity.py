"""Perplexity of the text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from bitfront.evaluation.base import Metric, Values, predictions
from bitfront.models.reference import Answers


@dataclass(frozen=True)
class Perplexity(Metric):
    """exp of the mean negative log-likelihood of the next token, over every position that has one.

    The number papers report; noisier than KL for ranking candidates, because it judges against one
    sampled token instead of the whole distribution.
    """

    def per_token(self, logits: torch.Tensor, reference: Answers, index: int) -> torch.Tensor:
        """Negative log-likelihood of each token, in nats."""
        targets = predictions(reference).next_tokens(index).to(logits.device)
        return cross_entropy(logits.float(), targets, reduction="none")

    def reduce(self, means: Values) -> dict[str, float]:
        """`perplexity`; infinite where no float is large enough."""
        with np.errstate(over="ignore"):
            return {"perplexity": float(np.exp(means.mean()))}
