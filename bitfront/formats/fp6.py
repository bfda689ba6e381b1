"""6-bit floats (e2m3, e3m2) with a float16 scale per group."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from bitfront.errors import InvalidArgument
from bitfront.formats._elements import Float6
from bitfront.formats.base import GROUP_SIZES, GroupScaled, float16_scale

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Fp6(GroupScaled, Float6):
    """e2m3 or e3m2 levels times a float16 scale: scale = largest size in the group / 7.5 or 28.

    FP6-LLM (Xia et al. 2024, arXiv:2401.14112) serves e3m2 with a scale per row. Costs 16 bits per
    group: `fp6_e2m3_g64` takes 6.25 bits per weight. It has the numbers of `mxfp6_e2m3` with a
    finer scale; prefer that where the device multiplies it.

    Args:
        exponent_bits: 2 for e2m3, 3 for e3m2.
        group_size: columns that share a scale: 32, 64 or 128.
    """

    group_size: int = 64

    def __post_init__(self) -> None:
        if self.exponent_bits not in (2, 3):
            raise InvalidArgument(f"fp6 has 2 or 3 exponent bits, not {self.exponent_bits}.")
        if self.group_size not in GROUP_SIZES:
            raise InvalidArgument(f"Group size {self.group_size} of fp6 is not 32, 64 or 128.")

    @property
    def name(self) -> str:
        """`fp6_e2m3_g64`."""
        return f"fp6_{self.element}_g{self.group_size}"

    @classmethod
    def catalogue(cls) -> tuple[Fp6, ...]:
        """Both elements, group 64 and 128."""
        return tuple(cls(bits, size) for bits, size in product((2, 3), (64, 128)))

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Largest size of the group over the largest level."""
        return {"scale": float16_scale((-low).maximum(high) * clip / self.largest)}
