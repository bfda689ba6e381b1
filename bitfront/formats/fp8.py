"""8-bit floats (e4m3) with a float32 scale per row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bitfront.formats.base import Format, StoredTensor

if TYPE_CHECKING:
    import torch

LARGEST = 448.0


@dataclass(frozen=True)
class Fp8(Format):
    """e4m3 values times one float32 scale per row: scale = largest size in the row / 448.

    OCP 8-bit Floating Point Specification 1.0; FP8 Formats for Deep Learning (Micikevicius et al.
    2022, arXiv:2209.05433). Codes are the bit patterns, stored as a float8_e4m3fn matrix without
    padding. Takes 8 + 32 / n_columns bits per weight. At equal bits `int8_g64` has less error;
    prefer this where the device multiplies it.
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

    def levels(self) -> tuple[float, ...]:
        """Value of each bit pattern; the two NaN patterns stand for the largest value."""
        return (*(_positive(code) for code in range(128)), *(-_positive(c) for c in range(128)))

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Float32 scale per row."""
        return {"scale": StoredTensor((shape[0], 1), "float32")}

    def stored(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """One float8 matrix and the scales."""
        return {"weight": StoredTensor(shape, "float8_e4m3fn")} | self.stored_qparams(shape)

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Largest size of the row over 448, at least the smallest normal float32."""
        return {"scale": ((-low).maximum(high) * clip / LARGEST).clamp_(min=2.0**-126)}

    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The scale."""
        return qparams["scale"], None

    def nearest(self, scaled: torch.Tensor) -> torch.Tensor:
        """Bit patterns of the nearest e4m3 values; beyond 448 saturates."""
        import torch

        return scaled.clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn).view(torch.uint8)

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        """Values of bit patterns."""
        import torch

        return codes.view(torch.float8_e4m3fn).float()

    def pack(
        self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The codes as a float8 matrix."""
        import torch

        return {"weight": codes.view(torch.float8_e4m3fn)} | dict(qparams)

    def unpack(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, int]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The float8 matrix as codes."""
        import torch

        return tensors["weight"].view(torch.uint8), {"scale": tensors["scale"]}


def _positive(code: int) -> float:
    exponent, mantissa = divmod(min(code, 126), 8)
    return float(
        2.0**-9 * mantissa if exponent == 0 else 2.0 ** (exponent - 7) * (1 + mantissa / 8)
    )
