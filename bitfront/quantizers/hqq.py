"""Half-quadratic quantization: zero points (or scales) that shrug off outliers, without data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from bitfront.errors import InvalidArgument
from bitfront.formats._widths import Widths
from bitfront.formats.base import Format
from bitfront.quantizers.base import (
    QuantizedWeight,
    Quantizer,
    best_clip,
    check_clip_search,
    nearest_codes,
    residuals,
)

_SMALLEST_ERROR = 1e-6  # of a step; |r|^(p-1) is infinite at 0


@dataclass(frozen=True)
class Hqq(Quantizer):
    """Zero points that minimise sum |W - Q(W)|^p with p < 1, by half-quadratic splitting.

    With r = W - Q(W) in units of the scale, alternate

        e <- sign(r) max(0, |r| - |r|^(p-1) / beta)        (shrinkage: e takes the outliers)
        z <- mean over the group of (code - W / s + e)      (then round again; beta <- kappa beta)

    and keep, per group, the best zero point met (Badri and Shaji 2023, "Half-Quadratic Quantization
    of Large Machine Learning Models", Mobius Labs). Formats without a zero point have their scale
    updated instead: s <- s <level, level + r - e> / <level, level>. The authors take errors in
    weight units, where this beta shrinks every error of a small weight to zero; units of the scale
    make it work alike on every matrix. The start is `rtn`: a clip of least sum |r|^p as start gave
    up to four times its squared error.

    Cost: up to `n_iterations` roundings and powers. Prefer it to `rtn` at 2 to 4 bits when there
    is no calibration data; with data, `gptq` is better.

    Args:
        norm: p, above 0, at most 1.
        beta: strength of the splitting at the start.
        kappa: growth of beta in each iteration, at least 1.
        n_iterations: most updates.
        tolerance: stops when an update lowers the error of the matrix by less than this fraction.
        clip_steps: clips tried besides 1 for the start; 0 starts from the whole range.
        min_clip: smallest clip tried.
    """

    norm: float = 0.7
    beta: float = 10.0
    kappa: float = 1.01
    n_iterations: int = 20
    tolerance: float = 1e-3
    clip_steps: int = 8
    min_clip: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.norm <= 1:
            raise InvalidArgument(f"norm={self.norm} is not above 0 and at most 1.")
        if self.beta <= 0 or self.kappa < 1:
            raise InvalidArgument(
                f"beta={self.beta}, kappa={self.kappa}: beta must be above 0, kappa at least 1."
            )
        if self.n_iterations < 1 or self.tolerance < 0:
            raise InvalidArgument(
                f"n_iterations={self.n_iterations}, tolerance={self.tolerance}: "
                "give at least 1 iteration and a tolerance of 0 or more."
            )
        check_clip_search(self.clip_steps, self.min_clip)

    def rounded(
        self, weight: torch.Tensor, format: Format, hessian: torch.Tensor | None
    ) -> QuantizedWeight:
        """Quantize one matrix; the Hessian is not used."""
        clip = best_clip(weight, format, self.clip_steps, self.min_clip)
        qparams = format.qparams(weight, clip)
        if format.scaled and not format.learned:
            qparams = self._refined(weight, format, qparams, clip)
        return QuantizedWeight(format, nearest_codes(weight, format, qparams), qparams)

    def _refined(
        self,
        weight: torch.Tensor,
        format: Format,
        qparams: Mapping[str, torch.Tensor],
        clip: float | torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Parameters of the best iteration of each group."""
        group_range = format.group_range(weight)
        scale, zero_point = format.affine(qparams)
        shifts = zero_point is not None
        current = zero_point if zero_point is not None else torch.zeros_like(scale) + clip
        top = torch.full_like(scale[0], 2.0**format.num_bits - 1 if shifts else 2.0)
        if isinstance(format, Widths):
            top = format.tops(qparams)

        def applied(value: torch.Tensor) -> dict[str, torch.Tensor]:
            if shifts:
                return {**qparams, "zero_point": value.to(qparams["zero_point"].dtype)}
            return format.qparams_of_range(*group_range, value)

        best, least = current, torch.full_like(scale, torch.inf)
        for iteration in range(self.n_iterations + 1):
            beta = self.beta * self.kappa**iteration
            error, step = self._step(weight, format, applied(current), beta)
            better = error < least
            gain = (least - error)[better].sum()
            best = torch.where(better, current, best)
            least = torch.where(better, error, least)
            if gain < self.tolerance * least.sum():
                break
            moved = current - step[0] if shifts else current * (1 + step[1])
            current = moved.clamp(min=0.0 if shifts else 0.1).minimum(top)
        return applied(best)

    def _step(
        self,
        weight: torch.Tensor,
        format: Format,
        qparams: Mapping[str, torch.Tensor],
        beta: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Error sum |W - Q(W)|^p of each group; move of the zero point, relative move of the scale.

        Shapes `[n_rows, n_groups]` and `[2, n_rows, n_groups]`.
        """
        scale, _ = format.affine(qparams)
        error, step = torch.empty_like(scale), scale.new_empty(2, *scale.shape)
        for rows, residual, level in residuals(weight, format, qparams):
            size = residual.abs().clamp_(min=_SMALLEST_ERROR)
            power = size.pow(self.norm - 1)  # |r|^(p-1)
            error[rows] = (size * power).sum(dim=2) * scale[rows].abs() ** self.norm
            kept = residual.clamp(-power / beta, power / beta)  # r - e
            step[0, rows] = kept.mean(dim=2)
            energy = level.square().sum(dim=2).clamp_(min=_SMALLEST_ERROR)
            step[1, rows] = (level * kept).sum(dim=2) / energy
        return error, step
