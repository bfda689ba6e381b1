"""OCP microscaling 6-bit floats: e2m3 or e3m2 with a power-of-two scale per 32 columns."""

from __future__ import annotations

from dataclasses import dataclass

from bitfront.errors import InvalidArgument
from bitfront.formats._elements import Float6
from bitfront.formats._scales import Microscaled


@dataclass(frozen=True)
class Mxfp6(Float6, Microscaled):
    """e2m3 or e3m2 levels times 2^e, one uint8 exponent per 32 columns: 6.25 bits per weight.

    OCP Microscaling Formats 1.0, sections 5.3.2 and 5.4.1. e2m3 has less error on weights, which
    one scale per 32 columns leaves little range; e3m2 is for what spreads wider.

    Args:
        exponent_bits: 2 for e2m3, 3 for e3m2.
    """

    def __post_init__(self) -> None:
        if self.exponent_bits not in (2, 3):
            raise InvalidArgument(f"mxfp6 has 2 or 3 exponent bits, not {self.exponent_bits}.")

    @property
    def name(self) -> str:
        """`mxfp6_e2m3`, `mxfp6_e3m2`."""
        return f"mxfp6_{self.element}"

    @classmethod
    def catalogue(cls) -> tuple[Mxfp6, ...]:
        """Both."""
        return cls(2), cls(3)
