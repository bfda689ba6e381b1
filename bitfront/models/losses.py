"""Losses as gradients with respect to the logits, summed over tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bitfront.errors import InvalidArgument
from bitfront.models.reference import Reference

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
    mean square of a sequence's gradient is the sum of its tokens' true Fisher information.

    Args:
        tokens: int64 `[n_sequences, length]`; position t predicts token t + 1.
        uniforms: float32 `[n_draws, n_sequences, length - 1]` in [0, 1), which quantile of its
            prediction each drawn label is; `None` for the text's labels.
    """

    tokens: Tensor
    uniforms: Tensor | None

    @classmethod
    def of(cls, tokens: Tensor, labels: str, n_draws: int, seed: int) -> LabelLoss:
        """`labels` as in `LABELS`; draws depend on seed and position, not on how passes are cut."""
        if labels == "text":
            return cls(tokens, None)
        n, length = tokens.shape
        generator = torch.Generator().manual_seed(seed)
        return cls(tokens, torch.rand(n_draws, n, length - 1, generator=generator))

    def __call__(self, logits: Tensor, rows: slice, draw: int) -> Tensor:
        """`softmax(logits) - onehot(label)`, float32 `[n, length, vocabulary]`; last position 0."""
        gradient = torch.softmax(logits.float(), dim=-1)
        gradient[:, -1] = 0
        predicted = gradient[:, :-1]
        labels = self._labels(predicted, rows, draw)[..., None]
        predicted.scatter_add_(-1, labels, torch.full_like(labels, -1, dtype=predicted.dtype))
        return gradient

    def _labels(self, predicted: Tensor, rows: slice, draw: int) -> Tensor:
        if self.uniforms is None:
            return self.tokens[rows, 1:].to(predicted.device)
        cumulative = predicted.cumsum(dim=-1)
        quantiles = self.uniforms[draw, rows, :, None].to(predicted.device) * cumulative[..., -1:]
        labels = torch.searchsorted(cumulative, quantiles, right=True)[..., 0]
        return labels.clamp(max=predicted.shape[-1] - 1)


@dataclass(frozen=True, eq=False)
class KlLoss:
    """KL(unquantized || model) in nats, over the top K of the reference and "any other"."""

    reference: Reference

    def __call__(self, logits: Tensor, rows: slice, draw: int) -> Tensor:
        """`q - p`, float32 `[n, length, vocabulary]`, p's tail spread as q's; last position 0."""
        gradient = torch.softmax(logits.float(), dim=-1)
        gradient[:, -1] = 0
        q = gradient[:, :-1]
        indices = self.reference.indices[rows].to(q.device).long()
        top = q.gather(-1, indices) - self.reference.log_probs[rows].to(q.device).exp()
        q.scatter_(-1, indices, 0.0)
        tail = self.reference.log_tail[rows, :, None].to(q.device).exp()
        # A tail that underflows is all zeros: the bound keeps 0 * infinity out.
        q *= 1 - tail / q.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)
        q.scatter_(-1, indices, top)
        return gradient
