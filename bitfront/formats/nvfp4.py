"""NVIDIA's 4-bit floats: e2m1 with an e4m3 scale per 16 columns and a float32 scale per matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitfront.formats._elements import Float4
from bitfront.formats._scales import BlockScaled

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Nvfp4(Float4, BlockScaled):
    """e2m1 levels times an e4m3 scale per 16 columns times one float32 scale: 4.5 bits per weight.

    NVIDIA, "Pretraining Large Language Models with NVFP4", arXiv:2509.25149, appendix B.
    Prefer it on Blackwell; elsewhere `int4_g64` costs the same.
    """

    @property
    def name(self) -> str:
        """`nvfp4`."""
        return "nvfp4"

    @classmethod
    def catalogue(cls) -> tuple[Nvfp4, ...]:
        """One format."""
        return (cls(),)

    def whole_range(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """Largest size of the group over 6."""
        return (-low).maximum(high) / 6
