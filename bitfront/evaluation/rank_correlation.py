"""Whether similar sentences stay the more similar ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from bitfront.errors import InvalidArgument
from bitfront.evaluation.base import Metric, Values
from bitfront.models.embeddings import Embeddings
from bitfront.models.reference import Answers


@dataclass(frozen=True)
class RankCorrelation(Metric):
    """1 - Spearman's rho of the cosines of all pairs of sentences, against the unquantized model's.

    What search by embeddings feels: an error that all sentences share moves no rank.
    """

    of: ClassVar[str] = "embeddings"

    def of_sample(self, outputs: torch.Tensor, reference: Answers, index: int) -> Values:
        """Both embeddings of a sentence, `[2, width]`: of this model, and of the unquantized one.

        Raises:
            InvalidArgument: predictions are judged.
        """
        if not isinstance(reference, Embeddings):
            raise InvalidArgument("Predictions are no embeddings: leave out rank_correlation.")
        both = torch.stack([outputs[0].float().cpu(), reference.vectors[index]])
        return both.double().numpy()

    def per_token(self, logits: torch.Tensor, reference: Answers, index: int) -> torch.Tensor:
        """The embedding itself: a sentence alone has no rank."""
        return logits[0].float()

    def reduce(self, means: Values) -> dict[str, float]:
        """`rank_correlation_error`, of `means [n_sentences, 2, width]`; NaN below 3 sentences."""
        from scipy.stats import spearmanr  # half a second, for sentences alone

        rows, columns = np.triu_indices(len(means), 1)
        ours, theirs = (x[rows, columns] for x in (v @ v.T for v in means.transpose(1, 0, 2)))
        rho = spearmanr(ours, theirs).statistic if len(rows) > 2 else np.nan
        return {"rank_correlation_error": float(1 - rho)}
