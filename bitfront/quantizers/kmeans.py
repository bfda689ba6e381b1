"""Levels and scales fitted to the weights that the layer's inputs make count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfront.formats.base import Format
from bitfront.quantizers.base import (
    QuantizedWeight,
    Quantizer,
    best_clip,
    check_clip_search,
    checked_hessian,
    nearest_codes,
)


@dataclass(frozen=True)
class Kmeans(Quantizer):
    """Nearest level, levels chosen for the least sum H_jj (W_ij - Q(W)_ij)^2.

    H_jj = E[x_j^2] is what a squared error in column j costs: the diagonal of the Gauss-Newton
    matrix of the layer's output, which stands in for the Fisher diagonal of SqueezeLLM (Kim et al.
    2023, arXiv:2306.07629, section 4.1) as in any4 (Elhoushi and Johnson 2025, arXiv:2507.04610).
    Tables of look-up formats are fitted to each row by weighted k-means; all other formats have
    the clip of each group searched for, as `rtn` does, under the same weights. Cost: a sort of
    every row. Prefer it for look-up formats; `gptq` on the same format has less output error.

    Args:
        clip_steps: clips tried besides 1, of formats with fixed levels; 0 keeps the whole range.
        min_clip: smallest clip tried.
    """

    needs_hessian: ClassVar[bool] = True

    clip_steps: int = 8
    min_clip: float = 0.4

    def __post_init__(self) -> None:
        check_clip_search(self.clip_steps, self.min_clip)

    def rounded(
        self, weight: torch.Tensor, format: Format, hessian: torch.Tensor | None
    ) -> QuantizedWeight:
        """Round one matrix by the diagonal of its Hessian.

        Raises:
            NonFinite: the Hessian holds NaN or infinity.
            InvalidArgument: no Hessian, or one of another shape.
        """
        hessian = checked_hessian(hessian, weight.shape[1]).to(weight.device)
        importance = hessian.diagonal().clamp(min=0)
        clip = best_clip(weight, format, self.clip_steps, self.min_clip, importance)
        qparams = format.qparams(weight, clip, importance)
        return QuantizedWeight(format, nearest_codes(weight, format, qparams), qparams)
