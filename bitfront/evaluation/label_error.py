"""Share of predictions that are not what the label says."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bitfront.errors import InvalidArgument
from bitfront.evaluation.base import Metric, Values, predictions
from bitfront.models.reference import Answers


@dataclass(frozen=True)
class LabelError(Metric):
    """1 - top-1 accuracy against labels: the classes of images, or the next tokens of a text.

    The number papers report of images; `top1_error` holds the quantized model against the
    unquantized one instead. A quantized model may be right by chance where the unquantized one is
    wrong, so this can be lower than that of the unquantized model.
    """

    def per_token(self, logits: torch.Tensor, reference: Answers, index: int) -> torch.Tensor:
        """1 where the most likely class is not the label.

        Raises:
            InvalidArgument: the samples have no labels.
        """
        labels = predictions(reference).labels_of(index)
        if labels is None:
            raise InvalidArgument("These samples have no labels: leave out label_error.")
        largest, predicted = logits.max(dim=-1)
        wrong = (predicted != labels.to(logits.device)).float()
        return wrong.where(largest.isfinite(), torch.nan)

    def reduce(self, means: Values) -> dict[str, float]:
        """`label_error`."""
        return {"label_error": float(means.mean())}
