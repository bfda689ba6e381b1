"""Share of tokens whose most likely prediction changed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bitfront.evaluation.base import Metric, Values, predictions
from bitfront.models.reference import Answers


@dataclass(frozen=True)
class Top1Error(Metric):
    """1 - agreement of the most likely token with the unquantized model's.

    What greedy decoding feels; coarse, so it ranks close candidates badly.
    """

    def per_token(self, logits: torch.Tensor, reference: Answers, index: int) -> torch.Tensor:
        """1 where the most likely token differs."""
        largest, predicted = logits.max(dim=-1)
        changed = (predicted != predictions(reference).argmax(index).to(logits.device)).float()
        # NaN and infinity have a maximum too; their error must not look like a number.
        return changed.where(largest.isfinite(), torch.nan)

    def reduce(self, means: Values) -> dict[str, float]:
        """`top1_error`."""
        return {"top1_error": float(means.mean())}
