"""OCP microscaling 4-bit floats: e2m1 with a power-of-two scale per 32 columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitfront.formats.base import Float4, StoredTensor, group_shape

if TYPE_CHECKING:
    import torch

BIAS = 127  # E8M0 stores exponent + 127; 255 is NaN
SMALLEST, LARGEST = -126, 125  # 6 * 2**126 is beyond float32


@dataclass(frozen=True)
class Mxfp4(Float4):
    """e2m1 levels times 2^e, one uint8 exponent (E8M0) per 32 columns: 4.25 bits per weight.

    OCP Microscaling Formats 1.0, sections 5.3.3 and 5.4.1. The exponent is the least that covers
    the group, e = ceil(log2(largest size / 6)); the specification's conversion (section 6.3)
    rounds down instead and saturates what lies above 6, which is this one at a clip of 3/4 or
    less, so a quantizer with a clip search tries both. Prefer it on devices that multiply it.
    """

    @property
    def name(self) -> str:
        """`mxfp4`."""
        return "mxfp4"

    @property
    def group_columns(self) -> int | None:
        """32, as the specification fixes."""
        return 32

    @classmethod
    def catalogue(cls) -> tuple[Mxfp4, ...]:
        """One format."""
        return (cls(),)

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """E8M0 exponent per group."""
        return {"scale": StoredTensor(group_shape(shape, 32), "uint8")}

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Biased exponent of the smallest power of two that covers the group."""
        import torch

        mantissa, exponent = torch.frexp((-low).maximum(high) * clip / 6)
        exponent = exponent - (mantissa == 0.5).int()  # frexp: mantissa in [1/2, 1)
        exponent = exponent.masked_fill(mantissa == 0, SMALLEST).clamp_(SMALLEST, LARGEST)
        return {"scale": (exponent + BIAS).to(torch.uint8)}

    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The power of two in float32."""
        import torch

        return (qparams["scale"].int() << 23).view(torch.float32), None  # the same bias as float32
