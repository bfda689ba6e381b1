"""4-bit floats (e2m1) with a float16 scale per group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitfront.errors import InvalidArgument
from bitfront.formats.base import Float4, StoredTensor, float16_scale, group_shape

if TYPE_CHECKING:
    import torch

GROUP_SIZES = (32, 64, 128)


@dataclass(frozen=True)
class Fp4(Float4):
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

    @property
    def group_columns(self) -> int | None:
        """The group size."""
        return self.group_size

    @classmethod
    def catalogue(cls) -> tuple[Fp4, ...]:
        """Group 32, 64 and 128."""
        return tuple(cls(group_size=size) for size in GROUP_SIZES)

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Float16 scale per group."""
        return {"scale": StoredTensor(group_shape(shape, self.group_size), "float16")}

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Largest size of the group over 6."""
        return {"scale": float16_scale((-low).maximum(high) * clip / 6)}

    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The scale in float32."""
        return qparams["scale"].float(), None
