"""Losses as gradients with respect to the logits, summed over what is scored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bitfront.errors import InvalidArgument
from bitfront.models.embeddings import EmbeddingLabelLoss
from bitfront.models.gradients import LogitGradient
from bitfront.models.reference import Answers
from bitfront.models.tasks import TEXT, SentenceEmbedding, Task

LABELS = ("model", "text")


def check_labels(labels: str, n_draws: int) -> None:
    """Refuse an unknown kind of label, and several draws of labels that are not drawn.

    Raises:
        InvalidArgument: what was given and what is allowed.
    """
    if labels not in LABELS:
        raise InvalidArgument(f"Unknown labels {labels!r}: use 'model' or 'text'.")
    if n_draws < 1 or (labels == "text" and n_draws != 1):
        raise InvalidArgument(
            f"n_draws is {n_draws} with labels {labels!r}: use at least 1, and 1 with 'text'."
        )


@dataclass(frozen=True, eq=False)
class LabelLoss:
    """Negative log-likelihood of the text's next tokens, or of tokens drawn from the model itself.

    With drawn labels the gradients of different tokens are independent with mean zero, so the
    mean square of a sequence's gradient is the sum of its tokens' true Fisher information. Of an
    image the label is its class.

    Args:
        n_scored: outputs for a sample that have a label: the first so many.
        labels: those of the samples, int64 `[n_samples, n_scored]`; where there are none (images),
            each output's own most likely one counts as such.
        uniforms: float32 `[n_draws, n_samples, n_scored]` in [0, 1), which quantile of its
            prediction each drawn label is; `None` for the samples' labels.
    """

    n_scored: int
    labels: Tensor | None
    uniforms: Tensor | None

    @classmethod
    def of(
        cls, samples: Tensor, labels: str, n_draws: int, seed: int, task: Task = TEXT
    ) -> LabelLoss:
        """`labels` as in `LABELS`; draws depend on seed and position, not on how passes are cut."""
        n_scored = task.n_scored(samples)
        if labels == "text":
            return cls(n_scored, task.labels(samples), None)
        generator = torch.Generator().manual_seed(seed)
        uniforms = torch.rand(n_draws, len(samples), n_scored, generator=generator)
        return cls(n_scored, None, uniforms)

    def __call__(self, logits: Tensor, rows: slice, draw: int) -> Tensor:
        """`softmax(logits) - onehot(label)`, float32, shaped as the logits; 0 where not scored."""
        gradient = torch.softmax(logits.float(), dim=-1)
        gradient[:, self.n_scored :] = 0
        predicted = gradient[:, : self.n_scored]
        labels = self._labels(predicted, rows, draw)[..., None]
        predicted.scatter_add_(-1, labels, torch.full_like(labels, -1, dtype=predicted.dtype))
        return gradient

    def _labels(self, predicted: Tensor, rows: slice, draw: int) -> Tensor:
        if self.uniforms is None:
            if self.labels is None:
                return predicted.argmax(dim=-1)
            return self.labels[rows].to(predicted.device)
        cumulative = predicted.cumsum(dim=-1)
        quantiles = self.uniforms[draw, rows, :, None].to(predicted.device) * cumulative[..., -1:]
        labels = torch.searchsorted(cumulative, quantiles, right=True)[..., 0]
        return labels.clamp(max=predicted.shape[-1] - 1)


def label_loss(
    samples: Tensor, labels: str, n_draws: int, seed: int, task: Task = TEXT
) -> LogitGradient:
    """The loss of labels of a task's outputs; arguments as `LabelLoss.of`.

    Raises:
        InvalidArgument: labels of sentences that are not drawn: there are none.
    """
    if not isinstance(task, SentenceEmbedding):
        return LabelLoss.of(samples, labels, n_draws, seed, task)
    if labels != "model":
        raise InvalidArgument(
            f"Sentences have no labels, but labels={labels!r} is asked for: use labels=model, or "
            "another estimator, such as fisher."
        )
    return EmbeddingLabelLoss(seed)


@dataclass(frozen=True, eq=False)
class KlLoss:
    """The divergence that searches minimize: KL in nats, or the cosine error of embeddings."""

    reference: Answers

    def __call__(self, outputs: Tensor, rows: slice, draw: int) -> Tensor:
        """`Answers.gradient`."""
        return self.reference.gradient(outputs, rows)
