"""Round to nearest, each group clipped where its squared error is least."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bitfront.formats.base import Format
from bitfront.quantizers.base import (
    QuantizedWeight,
    Quantizer,
    best_clip,
    check_clip_search,
    nearest_codes,
)


@dataclass(frozen=True)
class Rtn(Quantizer):
    """Nearest level of every weight: min over clip c of ||W - Q_c(W)||^2, group by group.

    The levels cover c times the range of a group; c runs over `clip_steps` even steps from 1 down
    to `min_clip`. Rounding is what every other quantizer is judged by; the clip search is the
    "MSE observer" of the field (Banner et al. 2019, arXiv:1810.05723; Choukroun et al. 2019,
    arXiv:1902.06822). Cost: one rounding per clip. Prefer it where no calibration data is at hand.

    Args:
        clip_steps: clips tried besides 1; 0 keeps the whole range (plain min-max).
        min_clip: smallest clip tried, above 0 and below 1.
    """

    clip_steps: int = 8
    min_clip: float = 0.4

    def __post_init__(self) -> None:
        check_clip_search(self.clip_steps, self.min_clip)

    def rounded(
        self, weight: torch.Tensor, format: Format, hessian: torch.Tensor | None
    ) -> QuantizedWeight:
        """Round one matrix; the Hessian is not used."""
        clip = best_clip(weight, format, self.clip_steps, self.min_clip)
        qparams = format.qparams(weight, clip)
        return QuantizedWeight(format, nearest_codes(weight, format, qparams), qparams)
