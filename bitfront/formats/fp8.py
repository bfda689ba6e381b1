"""8-bit floats (e4m3) with a float32 scale per row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bitfront.formats._elements import E4M3_LARGEST, E4m3
from bitfront.formats.base import StoredTensor

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Fp8(E4m3):
    """e4m3 values times one float32 scale per row: scale = largest size in the row / 448.

    OCP 8-bit Floating Point Specification 1.0; FP8 Formats for Deep Learning (Micikevicius et al.
    2022, arXiv:2209.05433). Codes are the bit patterns, stored as a float8_e4m3fn matrix without
    padding. Takes 8 + 32 / n_columns bits per weight. Where few numbers of a row are many times as
    large as the others it has less error than `int8_channel_sym` (Kuzmin et al. 2022,
    arXiv:2208.09225); elsewhere, and beside `int8_g64`, more. Prefer it where the device multiplies
    it.
    """

    num_bits: int = field(default=8, init=False)

    @property
    def name(self) -> str:
        """`fp8_e4m3`."""
        return "fp8_e4m3"

    @property
    def group_columns(self) -> int | None:
        """The whole row."""
        return None

    @classmethod
    def catalogue(cls) -> tuple[Fp8, ...]:
        """One format."""
        return (cls(),)

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Float32 scale per row."""
        return {"scale": StoredTensor((shape[0], 1), "float32")}

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Largest size of the row over 448, at least the smallest normal float32."""
        return {"scale": ((-low).maximum(high) * clip / E4M3_LARGEST).clamp_(min=2.0**-126)}

    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The scale."""
        return qparams["scale"], None
