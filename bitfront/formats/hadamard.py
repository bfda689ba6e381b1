"""Any grid after a Hadamard rotation of a layer's inputs."""

from __future__ import annotations

from dataclasses import dataclass, field

from bitfront.formats._rotation import Rotated
from bitfront.formats.base import Format
from bitfront.formats.fp4 import Fp4
from bitfront.formats.int_grouped import IntGrouped
from bitfront.formats.mxfp4 import Mxfp4
from bitfront.formats.nvfp4 import Nvfp4
from bitfront.formats.nvint4 import Nvint4


@dataclass(frozen=True)
class Hadamard(Rotated):
    """Integers or 4-bit floats of a weight whose rows were turned by random signs and Hadamard.

    A rotation spreads what sticks out in a few columns over a block of 256, so that a group's
    range is that of Gaussian numbers whatever the weight was like. QuaRot (Ashkboos et al. 2024,
    arXiv:2404.00456, section 4) does so with integers, MR-GPTQ (Egiazarian et al. 2025,
    arXiv:2509.23202, section 4) with mxfp4 and nvfp4, Chen et al. (2025, arXiv:2510.25602)
    with nvint4. Takes the bytes of its grid, and one product with a 256 x 256 matrix per 256 inputs
    when it runs. Prefer it for weights or Gram matrices with outlying columns; it gains nothing on
    Gaussian weights.

    Args:
        grid: what the turned weight is stored in.
    """

    grid: Format = field(default_factory=IntGrouped)

    @property
    def base(self) -> Format:
        """The grid."""
        return self.grid

    @property
    def num_bits(self) -> int:
        """Those of the grid."""
        return self.grid.num_bits

    @property
    def name(self) -> str:
        """`int4_g64_had`."""
        return f"{self.grid.name}_had"

    @classmethod
    def catalogue(cls) -> tuple[Hadamard, ...]:
        """Integers of 2 to 4 bits with zero points, symmetric ones of 4 and 8; e2m1; nvint4."""
        groups = (32, 64, 128, None)
        grids: list[Format] = [IntGrouped(bits, size) for bits in (2, 3, 4) for size in groups]
        grids += [IntGrouped(4, size, symmetric=True) for size in (64, 128, None)]
        grids.append(IntGrouped(8, None, symmetric=True))  # gains with rounded inputs alone
        grids += [Fp4(32), Fp4(64), Mxfp4(), Nvfp4(), Nvint4()]
        return tuple(map(cls, grids))
