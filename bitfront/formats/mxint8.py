"""OCP microscaling 8-bit integers with a power-of-two scale per 32 columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bitfront.formats._scales import Microscaled

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Mxint8(Microscaled):
    """Two's complement bytes over 64, from -2 to 127/64, times 2^e per 32 columns: 8.25 bits.

    OCP Microscaling Formats 1.0, sections 5.3.4 and 5.4.1; the codes are the bit patterns. Prefer
    it to `mxfp8_e4m3` where a device multiplies both: weights have little range within 32 columns.
    """

    num_bits: int = field(default=8, init=False)

    @property
    def name(self) -> str:
        """`mxint8`."""
        return "mxint8"

    @property
    def largest(self) -> float:
        """127/64; -2 is larger in size, and not what a range is laid on."""
        return 127 / 64

    @classmethod
    def catalogue(cls) -> tuple[Mxint8, ...]:
        """One format."""
        return (cls(),)

    def levels(self) -> tuple[float, ...]:
        """Of the bit patterns: 0 to 127, then -128 to -1, over 64."""
        return tuple((code - 256 * (code > 127)) / 64 for code in range(256))

    def nearest(self, scaled: torch.Tensor) -> torch.Tensor:
        """Codes by rounding; no table."""
        import torch

        return self.rounded(scaled).mul_(64).to(torch.int8).view(torch.uint8)

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        """Bytes over 64; no table."""
        import torch

        return codes.view(torch.int8).float().div_(64)

    def rounded(self, scaled: torch.Tensor) -> torch.Tensor:
        """Nearest multiple of 1/64 in range."""
        return scaled.mul(64).round_().clamp_(-128, 127).div_(64)
