"""Levels and scales fitted to the weights that the layer's inputs make count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfront.errors import InvalidArgument
from bitfront.formats.base import Format
from bitfront.quantizers.base import (
    QuantizedWeight,
    Quantizer,
    best_clip,
    check_clip_search,
    checked_hessian,
    nearest_codes,
    powers,
)


@dataclass(frozen=True)
class Kmeans(Quantizer):
    """Nearest level, levels chosen for the least sum F_ij (W_ij - Q(W)_ij)^2.

    F_ij is what a squared error costs: E[x_j^2] of the inputs (relative to outputs in post-norm
    models, as of `gptq`), for what it does to the output of the layer, as in any4 (Elhoushi and
    Johnson 2025, arXiv:2507.04610, section 3); or the mean squared gradient of the weight, its
    Fisher information, for what it does to the loss, as in SqueezeLLM (Kim et al. 2023,
    arXiv:2306.07629, section 4.1). Turned weights have no gradients of their own: with these, they
    all count alike. Tables of look-up formats are fitted to each row by weighted k-means; all other
    formats have the clip of each group searched for, as `rtn` does, under the same weights. Cost: a
    sort of every row. Prefer it for look-up formats; `gptq` on the same format has less output
    error.

    Args:
        by: `"inputs"` or `"gradients"`, which take a backward pass over the text.
        clip_steps: clips tried besides 1, of formats with fixed levels; 0 keeps the whole range.
        min_clip: smallest clip tried.
    """

    needs_hessian: ClassVar[bool] = True

    by: str = "inputs"
    clip_steps: int = 8
    min_clip: float = 0.4

    def __post_init__(self) -> None:
        if self.by not in ("inputs", "gradients"):
            raise InvalidArgument(f"by={self.by} is not inputs or gradients.")
        check_clip_search(self.clip_steps, self.min_clip)

    @property
    def needs_fisher(self) -> bool:
        """By gradients."""
        return self.by == "gradients"

    def rounded(
        self, weight: torch.Tensor, format: Format, hessian: torch.Tensor | None
    ) -> QuantizedWeight:
        """Round one matrix by a diagonal of its Hessian.

        Raises:
            NonFinite: the Hessian holds NaN or infinity.
            InvalidArgument: no Hessian, or one of another shape.
        """
        importance = self._importance(weight, hessian)
        clip = best_clip(weight, format, self.clip_steps, self.min_clip, importance)
        qparams = format.qparams(weight, clip, importance)
        return QuantizedWeight(format, nearest_codes(weight, format, qparams), qparams)

    def _importance(
        self, weight: torch.Tensor, hessian: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Of each column, or of each weight; `None` where all count alike."""
        if self.needs_fisher:
            return hessian
        known = checked_hessian(hessian, weight).to(weight.device)
        return powers(known, len(weight)).clamp(min=0)
