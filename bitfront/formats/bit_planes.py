"""Bit planes on a variable grid: an offset and a coefficient per plane, fitted to each group."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from bitfront.errors import InvalidArgument
from bitfront.formats._sums import GroupGrid

if TYPE_CHECKING:
    import torch

GROUP_SIZES = (64, 128)


@dataclass(frozen=True)
class BitPlanes(GroupGrid):
    """`c0 + sum over planes of c_i b_i` with bits b_i: an integer grid whose steps are free.

    BPDQ (Chen et al. 2026, arXiv:2602.04163, section 3): integers are the case c_i = 2^i c_1, so
    that the best grid of a group is never worse than theirs. Here bits and coefficients are fitted
    by turns to the weights, each column counted by its importance; error feedback over columns is
    the quantizer's part (`gptq`). Takes k bits and k + 1 float16 numbers per group:
    `bit_planes2_g128` is 2.375 bits per weight, between `int2_g128` and `int2_g64`. Prefer it at 2
    bits; from 4 on the gain is small. Decoded before it is multiplied.

    Args:
        num_bits: planes, 2 to 4.
        group_size: columns that share coefficients: 64 or 128.
    """

    num_bits: int = 2
    group_size: int = 128

    def __post_init__(self) -> None:
        if not 2 <= self.num_bits <= 4:
            raise InvalidArgument(f"Bit planes are 2 to 4, not {self.num_bits}.")
        if self.group_size not in GROUP_SIZES:
            raise InvalidArgument(f"Group size {self.group_size} of bit planes is not 64 or 128.")

    @property
    def name(self) -> str:
        """`bit_planes2_g128`."""
        return f"bit_planes{self.num_bits}_g{self.group_size}"

    @classmethod
    def catalogue(cls) -> tuple[BitPlanes, ...]:
        """2 to 4 planes, group 64 and 128."""
        return tuple(cls(*fields) for fields in product((2, 3, 4), GROUP_SIZES))

    def digits(self) -> tuple[tuple[float, ...], ...]:
        """1 for the offset, then the bits of the code, lowest first."""
        bits = range(self.num_bits)
        return tuple(
            (1.0, *(float(code >> i & 1) for i in bits)) for code in range(1 << self.num_bits)
        )

    def starts(self, low: torch.Tensor, high: torch.Tensor) -> list[torch.Tensor]:
        """Even steps over the whole range, 0.8 and 0.6 of it."""
        import torch

        top = (1 << self.num_bits) - 1
        return [
            torch.stack(
                [low * clip, *((high - low) * clip * (1 << i) / top for i in range(self.num_bits))],
                dim=2,
            )
            for clip in (1.0, 0.8, 0.6)
        ]
