"""OCP microscaling 8-bit floats: e4m3 with a power-of-two scale per 32 columns."""

from __future__ import annotations

from dataclasses import dataclass, field

from bitfront.formats._elements import E4M3_LARGEST, E4m3
from bitfront.formats._scales import Microscaled


@dataclass(frozen=True)
class Mxfp8(E4m3, Microscaled):
    """e4m3 levels times 2^e, one uint8 exponent (E8M0) per 32 columns: 8.25 bits per weight.

    OCP Microscaling Formats 1.0, sections 5.3.1 and 5.4.1. The specification's other element,
    e5m2, has a mantissa bit fewer and is meant for gradients. Prefer it on devices that multiply
    it; `mxint8` has less error at the same bits.
    """

    num_bits: int = field(default=8, init=False)

    @property
    def name(self) -> str:
        """`mxfp8_e4m3`."""
        return "mxfp8_e4m3"

    @property
    def largest(self) -> float:
        """448."""
        return E4M3_LARGEST

    @classmethod
    def catalogue(cls) -> tuple[Mxfp8, ...]:
        """One format."""
        return (cls(),)
