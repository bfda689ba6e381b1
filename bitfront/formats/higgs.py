"""Gaussian grids of weights that a Hadamard rotation makes Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

from bitfront.formats._rotation import Rotated
from bitfront.formats.base import Format
from bitfront.formats.gauss import Gauss


@dataclass(frozen=True)
class Higgs(Rotated):
    """Rows turned by random signs and Hadamard, then rounded to a grid made for Gaussian numbers.

    The squared error of a weight is then that of the grid times its size, whatever its
    distribution: without calibration data, and the same for every layer (HIGGS, Malinovskii et al.
    2024, arXiv:2411.17525, section 4). 2 to 4 bits in halves: log2(n) / p for n points in p
    dimensions, where Q-Palette (Lee and Song 2025, arXiv:2509.20214) asks for fractional widths.
    Costs 16 bits per group besides. Prefer it at 2 to 4 bits without calibration data.

    Args:
        size: points of the grid: 4, 8 or 16 numbers; 16, 32, 64, 128 or 256 pairs.
        dimension: columns to a code: 1 or 2.
        group_size: columns that share a scale: 64, 128 or None for the whole row.
    """

    size: int = 16
    dimension: int = 1
    group_size: int | None = 64

    def __post_init__(self) -> None:
        Gauss(self.size, self.dimension, self.group_size)  # refuses what there is not

    @property
    def base(self) -> Format:
        """The grid without the rotation."""
        return Gauss(self.size, self.dimension, self.group_size)

    @property
    def num_bits(self) -> int:
        """Bits of a code, which is `dimension` columns."""
        return self.base.num_bits

    @property
    def name(self) -> str:
        """`higgs_n16p1_g64`."""
        return self.base.name.replace("gauss", "higgs")

    @classmethod
    def catalogue(cls) -> tuple[Higgs, ...]:
        """Every grid of `gauss`."""
        return tuple(cls(x.size, x.dimension, x.group_size) for x in Gauss.catalogue())
