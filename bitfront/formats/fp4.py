"""4-bit floats (e2m1) with a float16 scale per group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitfront.errors import InvalidArgument
from bitfront.formats._elements import Float4
from bitfront.formats.base import GROUP_SIZES, GroupScaled, float16_scale

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Fp4(GroupScaled, Float4):
    """e2m1 levels times a float16 scale: scale = largest size in the group / 6.

    Costs 16 bits per group: `fp4_g64` takes 4.25 bits per weight. It has the numbers of `mxfp4`
    and `nvfp4` with a finer scale; prefer those where the device multiplies them natively.

    Args:
        group_size: columns that share a scale: 32, 64 or 128.
    """

    group_size: int = 64

    def __post_init__(self) -> None:
        if self.group_size not in GROUP_SIZES:
            raise InvalidArgument(f"Group size {self.group_size} of fp4 is not 32, 64 or 128.")

    @property
    def name(self) -> str:
        """`fp4_g64`."""
        return f"fp4_g{self.group_size}"

    @classmethod
    def catalogue(cls) -> tuple[Fp4, ...]:
        """Group 32, 64 and 128."""
        return tuple(cls(group_size=size) for size in GROUP_SIZES)

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Largest size of the group over 6."""
        return {"scale": float16_scale((-low).maximum(high) * clip / 6)}
