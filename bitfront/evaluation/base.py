"""Metric: what one token's prediction is worth; `evaluate` measures all metrics in one pass."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitfront.errors import InvalidArgument, NonFinite
from bitfront.models.reference import Answers, Reference
from bitfront.models.tasks import scored_outputs

Values = NDArray[np.float64]


class Metric(ABC):
    """A value per predicted token and how a text's values become numbers; lower is better.

    Subclasses are frozen dataclasses; the first quantity of `reduce` has the name of the metric's
    value in a trial, such as `"kl"`.
    """

    of: ClassVar[str] = "predictions"
    """What it judges: `"predictions"` of tokens or classes, or `"embeddings"`."""

    def of_sample(self, outputs: torch.Tensor, reference: Answers, index: int) -> Values:
        """What is kept of one sample: the mean over its tokens; arguments as `per_token`."""
        # float64: a float32 mean over a million tokens loses the digits that rank candidates.
        return self.per_token(outputs, reference, index).double().mean().cpu().numpy()

    @abstractmethod
    def per_token(self, logits: torch.Tensor, reference: Answers, index: int) -> torch.Tensor:
        """Value of each predicted token, float32 `[n_scored]`.

        Args:
            logits: of the model being judged, `[n_scored, vocabulary]`; left untouched.
            reference: what the unquantized model predicts.
            index: sequence of `reference` that the logits belong to.
        """

    @abstractmethod
    def reduce(self, means: Values) -> dict[str, float]:
        """Quantities of the whole text.

        Args:
            means: what `of_sample` gave, mean over tokens of each sequence, `[n_sequences]`; all
                sequences are as long.
        """


def predictions(reference: Answers) -> Reference:
    """The reference of a metric that judges predictions.

    Raises:
        InvalidArgument: it is of embeddings.
    """
    if not isinstance(reference, Reference):
        raise InvalidArgument("Embeddings predict nothing: measure cosine_error.")
    return reference


def sequence_values(
    model: nn.Module,
    reference: Answers,
    metrics: Mapping[str, Metric],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Values]:
    """Mean over tokens of every metric on every sequence, `[n_sequences]`; one forward serves all.

    Args:
        model: the model being judged.
        reference: holds the tokens, so text and reference cannot be mixed up.
        metrics: by name.
        progress: called with `(sequences done, sequences in all)`.

    Raises:
        NonFinite: a metric is NaN or infinite on some token; names the metric.
    """
    means: dict[str, list[Values]] = {name: [] for name in metrics}
    for index, sequence in enumerate(reference.tokens):
        logits = scored_outputs(model, sequence)
        for name, metric in metrics.items():
            kept = metric.of_sample(logits, reference, index)
            if not np.isfinite(kept).all():
                _finite(name, float(kept.sum()))
            means[name].append(kept)
        if progress:
            progress(index + 1, len(reference.tokens))
    return {name: np.array(values) for name, values in means.items()}


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise NonFinite(
            f"Metric {name!r} is {value}: the quantized model overflows. "
            "Use formats with more bits, or run the model in float32."
        )
    return value


def evaluate(
    model: nn.Module,
    reference: Answers,
    metrics: Mapping[str, Metric],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Every quantity of every metric over the whole text: `kl`, `kl_stderr`, `perplexity`, ...

    Raises:
        NonFinite: a metric is NaN or infinite; names the metric.
    """
    means = sequence_values(model, reference, metrics, progress)
    values = {k: v for name, m in metrics.items() for k, v in m.reduce(means[name]).items()}
    return {name: _finite(name, value) for name, value in values.items()}


def standard_error(means: Values) -> float:
    """Standard error of the mean over sequences, `means [n_sequences]`.

    Tokens of one sequence depend on each other, so sequences are the independent draws. A single
    sequence says nothing about its spread: its whole value is given as the error.
    """
    n = len(means)
    return float(means.std(ddof=1) / np.sqrt(n)) if n > 1 else float(np.abs(means).sum())
