"""4-bit integers with the scales of NVFP4: e4m3 per 16 columns and float32 per matrix."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bitfront.formats._elements import Integers
from bitfront.formats._scales import BlockScaled

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Nvint4(Integers, BlockScaled):
    """-8 to 7 times an e4m3 scale per 16 columns times one float32 scale: 4.5 bits per weight.

    "INT v.s. FP: A Comprehensive Study of Fine-Grained Low-bit Quantization Formats" (Chen et al.
    2025, arXiv:2510.25602), which stops at -7. Here the value of largest size falls on -8 and the
    sign bit of e4m3, idle in NVFP4, says on which side, so that no level is wasted. Has less error
    than `nvfp4` where weights are rotated (`nvint4_had`) or Gaussian; no engine reads it yet.
    """

    num_bits: int = field(default=4, init=False)

    @property
    def name(self) -> str:
        """`nvint4`."""
        return "nvint4"

    @classmethod
    def catalogue(cls) -> tuple[Nvint4, ...]:
        """One format."""
        return (cls(),)

    def whole_range(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """The value of largest size over -8."""
        import torch

        return torch.where(-low > high, low, high) / -8
