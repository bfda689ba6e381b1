"""Losses as gradients with respect to the logits, summed over what is scored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bitfront.errors import InvalidArgument
from bitfront.models.reference import Reference
from bitfront.models.tasks import TEXT, Task

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


@dataclass(frozen=True, eq=False)
class KlLoss:
    """KL(unquantized || model) in nats, over the top K of the reference and "any other"."""

    reference: Reference

    def __call__(self, logits: Tensor, rows: slice, draw: int) -> Tensor:
        """`q - p`, float32, shaped as the logits, p's tail spread as q's; 0 where not scored."""
        gradient = torch.softmax(logits.float(), dim=-1)
        n_scored = self.reference.n_scored
        gradient[:, n_scored:] = 0
        q = gradient[:, :n_scored]
        indices = self.reference.indices[rows].to(q.device).long()
        top = q.gather(-1, indices) - self.reference.log_probs[rows].to(q.device).exp()
        q.scatter_(-1, indices, 0.0)
        tail = self.reference.log_tail[rows, :, None].to(q.device).exp()
        # A tail that underflows is all zeros: the bound keeps 0 * infinity out.
        q *= 1 - tail / q.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)
        q.scatter_(-1, indices, top)
        return gradient
