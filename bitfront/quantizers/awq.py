"""Activation-aware quantization: column scales and clips of least output error, then rounding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfront.errors import InvalidArgument
from bitfront.formats.base import Format
from bitfront.formats.column_scaled import (
    LARGEST_EXPONENT,
    ColumnScaled,
    stored_exponents,
)
from bitfront.quantizers.base import (
    QuantizedWeight,
    Quantizer,
    best_clip,
    check_clip_search,
    checked_hessian,
    nearest_codes,
    powers,
)

Qparams = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Awq(Quantizer):
    """Round to nearest after columns that meet large inputs were scaled up.

    Scales s_j = E[x_j^2]^(a / 2), a from 0 to 1, divided by the root of the product of the largest
    and the smallest, rounded to powers of two; each group is clipped where its error weighted by
    E[x_j^2] / s_j^2 is least. Kept is what has the least output error tr(D H D^T), D = Q(W s) / s
    - W, measured over the whole matrix (Lin et al. 2023, "AWQ: Activation-aware Weight
    Quantization for LLM Compression and Acceleration", arXiv:2306.00978, section 3.2, with the root
    mean square for the mean size of an input). Formats with a scale per column (`int4_g64_cols`)
    keep it, and nothing else changes; in all others the clips alone are searched for.

    Cost: per power a, two clip searches and one product with H. Prefer `gptq`, which has half the
    output error; this reads the powers of the inputs alone until it compares, so that it needs
    less calibration text.

    Args:
        n_powers: powers a tried, evenly spaced from 0; 1 for a = 0 alone.
        clip_steps: clips tried besides 1; 0 keeps the whole range.
        min_clip: smallest clip tried.
    """

    needs_hessian: ClassVar[bool] = True

    n_powers: int = 11
    clip_steps: int = 8
    min_clip: float = 0.4

    def __post_init__(self) -> None:
        if self.n_powers < 1:
            raise InvalidArgument(f"n_powers={self.n_powers} is below 1.")
        check_clip_search(self.clip_steps, self.min_clip)

    def rounded(
        self, weight: torch.Tensor, format: Format, hessian: torch.Tensor | None
    ) -> QuantizedWeight:
        """Quantize one matrix with the Hessian of its input.

        Raises:
            NonFinite: the Hessian holds NaN or infinity.
            InvalidArgument: no Hessian, or one of another shape.
        """
        hessian = checked_hessian(hessian, weight).to(weight.device)
        importance = powers(hessian, len(weight)).clamp(min=0)
        best, least = None, torch.inf
        for qparams in self._candidates(weight, format, importance):
            quantized = QuantizedWeight(format, nearest_codes(weight, format, qparams), qparams)
            error = quantized.dequantize() - weight
            error = error.reshape(*hessian.shape[:-2], -1, weight.shape[1])
            loss = float((error @ hessian).mul_(error).sum(dtype=torch.float64))
            if best is None or loss < least:
                best, least = quantized, loss
        assert best is not None
        return best

    def _candidates(
        self, weight: torch.Tensor, format: Format, importance: torch.Tensor
    ) -> Iterator[Qparams]:
        """Parameters to choose from; those of `rtn` are the first."""
        if not isinstance(format, ColumnScaled):
            for counted in (None, importance):
                yield self._clipped(weight, format, counted)
            return
        for exponents in self._exponents(importance):
            scale = torch.exp2(exponents)
            for counted in (None, importance / scale.square()):
                clipped = self._clipped(weight * scale, format.grid, counted)
                yield clipped | stored_exponents(-exponents)

    def _clipped(
        self, weight: torch.Tensor, format: Format, importance: torch.Tensor | None
    ) -> Qparams:
        clip = best_clip(weight, format, self.clip_steps, self.min_clip, importance)
        return format.qparams(weight, clip, importance)

    def _exponents(self, importance: torch.Tensor) -> Iterator[torch.Tensor]:
        """Whole exponents `[n_columns]` of the scales of each power, equal ones once.

        Rows that read inputs of their own share the scales of their columns: the mean decides.
        """
        if importance.ndim == 2:
            importance = importance.mean(dim=0)
        live = importance > importance.max() * 1e-12
        least = importance[live].min() if live.any() else importance.new_ones(())
        logs = importance.where(live, least).log2() / 2
        logs = logs - (logs.max() + logs.min()) / 2
        last = None
        for step in range(self.n_powers):
            power = step / max(self.n_powers - 1, 1)
            exponents = (logs * power).round().clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT)
            if last is None or not torch.equal(exponents, last):
                yield exponents
            last = exponents
