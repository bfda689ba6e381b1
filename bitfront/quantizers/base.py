"""Quantizer: how the codes of a format are chosen for one weight matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from bitfront.formats.base import Format


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
