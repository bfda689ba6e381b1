"""OCP microscaling 4-bit floats: e2m1 with a power-of-two scale per 32 columns."""

from __future__ import annotations

from dataclasses import dataclass

from bitfront.formats._elements import Float4
from bitfront.formats._scales import Microscaled


@dataclass(frozen=True)
class Mxfp4(Float4, Microscaled):
    """e2m1 levels times 2^e, one uint8 exponent (E8M0) per 32 columns: 4.25 bits per weight.

    OCP Microscaling Formats 1.0, sections 5.3.3 and 5.4.1. Prefer it on devices that multiply it.
    """

    @property
    def name(self) -> str:
        """`mxfp4`."""
        return "mxfp4"

    @property
    def largest(self) -> float:
        """6."""
        return 6.0

    @classmethod
    def catalogue(cls) -> tuple[Mxfp4, ...]:
        """One format."""
        return (cls(),)
