"""Quantizer: how the codes of a format are chosen for one weight matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfront.errors import InvalidArgument, NonFinite
from bitfront.formats.base import Format

_CHUNK_WEIGHTS = 1 << 16


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """Codes and parameters of one weight in one format.

    Args:
        format: what the codes mean.
        codes: uint8 `[n_rows, n_columns]` (bf16: the weight itself).
        qparams: parameters as stored, by tensor name.
    """

    format: Format
    codes: torch.Tensor
    qparams: Mapping[str, torch.Tensor]

    def dequantize(self) -> torch.Tensor:
        """Float32 `[n_rows, n_columns]`."""
        return self.format.decode(self.codes, self.qparams)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Packed tensors as written to disk."""
        return self.format.pack(self.codes, self.qparams)


class Quantizer(ABC):
    """Chooses codes for a weight. Subclasses are frozen dataclasses of hyperparameters."""

    needs_hessian: ClassVar[bool] = False
    """Whether `quantize` wants the input Gram matrix of the layer."""

    version: ClassVar[int] = 1
    """Raised when the same hyperparameters begin to give other codes; part of every cache key."""

    @abstractmethod
    def quantize(
        self, weight: torch.Tensor, format: Format, hessian: torch.Tensor | None = None
    ) -> QuantizedWeight:
        """Quantize one matrix.

        Args:
            weight: float32 `[n_rows, n_columns]`.
            format: target format; it must fit the shape.
            hessian: float32 `[n_columns, n_columns]`, mean of x x^T over calibration tokens.

        Raises:
            NonFinite: the weight or the Hessian holds NaN or infinity.
        """


def checked(weight: torch.Tensor, format: Format) -> torch.Tensor:
    """The weight as contiguous float32, after checking that it is finite and fits the format.

    Raises:
        NonFinite: the weight holds NaN or infinity.
        InvalidArgument: not a matrix, or the format does not fit its shape.
    """
    if weight.ndim != 2 or not format.fits((weight.shape[0], weight.shape[1])):
        raise InvalidArgument(
            f"Format {format.name!r} does not fit a weight of shape {tuple(weight.shape)}: "
            f"it needs a matrix with whole groups of {format.group_columns} columns."
        )
    weight = weight.detach().to(torch.float32).contiguous()
    if not torch.isfinite(torch.stack(torch.aminmax(weight))).all():  # ten times isfinite(weight)
        bad = int((~torch.isfinite(weight)).sum())
        raise NonFinite(
            f"A weight of shape {tuple(weight.shape)} holds {bad} NaN or infinite values; "
            "check the checkpoint (a float16 overflow or a broken file)."
        )
    return weight


def best_clip(
    weight: torch.Tensor, format: Format, n_steps: int, smallest: float, norm: float = 2.0
) -> torch.Tensor | float:
    """Clip of each group with the least error sum |W - Q(W)|^norm, float32 `[n_rows, n_groups]`.

    Tries 1 and `n_steps` even steps down to `smallest`; a few rows at a time, to stay in the cache.
    """
    if n_steps == 0 or not format.scaled:
        return 1.0
    low, high = format.group_range(weight)
    best = torch.ones_like(low)
    least = group_error(weight, format, format.qparams_of_range(low, high), norm)
    for clip in torch.linspace(1, smallest, n_steps + 1)[1:].tolist():
        error = group_error(weight, format, format.qparams_of_range(low, high, clip), norm)
        better = error < least
        best[better] = clip
        least = torch.where(better, error, least)
    return best


def group_error(
    weight: torch.Tensor, format: Format, qparams: Mapping[str, torch.Tensor], norm: float = 2.0
) -> torch.Tensor:
    """Sum of |W - Q(W)|^norm over each group after rounding to nearest, `[n_rows, n_groups]`."""
    scale, zero_point = format.affine(qparams)
    error, inverse = torch.empty_like(scale), 1 / scale
    step = max(1, _CHUNK_WEIGHTS // weight.shape[1])
    for start in range(0, weight.shape[0], step):
        rows = slice(start, start + step)
        scaled = weight[rows].reshape(-1, scale.shape[1], weight.shape[1] // scale.shape[1])
        scaled = scaled * inverse[rows, :, None]
        if zero_point is not None:
            scaled += zero_point[rows, :, None]
        residual = scaled.sub_(format.rounded(scaled)).abs_()
        powers = residual.square_() if norm == 2.0 else residual.pow_(norm)
        error[rows] = powers.sum(dim=2) * scale[rows].abs() ** norm
    return error
