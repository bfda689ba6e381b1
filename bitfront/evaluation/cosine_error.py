"""Cosine error of sentence embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfront.evaluation.base import Metric, Values, standard_error
from bitfront.models.reference import Answers


@dataclass(frozen=True)
class CosineError(Metric):
    """1 - cosine of a sentence's embedding and the unquantized model's, with its standard error.

    What searches of sentence encoders minimize, as `kl` is of models that predict.
    """

    of: ClassVar[str] = "embeddings"

    def per_token(self, logits: torch.Tensor, reference: Answers, index: int) -> torch.Tensor:
        """That of a sentence, `[1]`."""
        return reference.divergence(logits, index)

    def reduce(self, means: Values) -> dict[str, float]:
        """`cosine_error` and `cosine_error_stderr`."""
        error = standard_error(means)
        return {"cosine_error": float(means.mean()), "cosine_error_stderr": error}
