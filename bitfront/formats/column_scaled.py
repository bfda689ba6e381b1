"""Integers of a weight whose columns were multiplied by powers of two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

from bitfront.errors import InvalidArgument
from bitfront.formats._derived import Derived
from bitfront.formats.base import StoredTensor
from bitfront.formats.int_grouped import IntGrouped

if TYPE_CHECKING:
    import torch

EXPONENTS = "column_exponents"
LARGEST_EXPONENT = 3
"""Wider ratios than 64 gain nothing, and move weights of quiet columns by more than their size."""
_BIAS = 127


@dataclass(frozen=True)
class ColumnScaled(Derived):
    """`2^e_j` times an integer grid: a power of two for each column, shared by all rows.

    AWQ (Lin et al. 2023, arXiv:2306.00978, section 3.2) multiplies the columns that large inputs
    meet before it rounds, and divides the inputs by the same numbers, folded into the layer before.
    Here they are kept with the weight and are powers of two (E8M0), so that decoding, or scaling
    the inputs instead, is exact in every dtype and any layer can have them. The quantizer `awq`
    chooses them; with others they are 1, and the grid is that of the integers. Takes 8 bits per
    column beside the grid: at 4096 rows 0.002 bits per weight.

    Args:
        grid: integers in groups.
    """

    grid: IntGrouped = field(default_factory=IntGrouped)

    def __post_init__(self) -> None:
        if self.grid.group_size is None:
            raise InvalidArgument("Scaled columns need a grid in groups of 32, 64 or 128 columns.")

    @property
    def base(self) -> IntGrouped:
        """The grid."""
        return self.grid

    @property
    def name(self) -> str:
        """`int4_g64_cols`."""
        return f"{self.grid.name}_cols"

    @classmethod
    def catalogue(cls) -> tuple[ColumnScaled, ...]:
        """2 to 4 bits, group 32, 64 and 128, with zero points."""
        return tuple(cls(IntGrouped(*fields)) for fields in product((2, 3, 4), (32, 64, 128)))

    def stored_beside(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Biased exponent of each column."""
        return {EXPONENTS: StoredTensor((1, shape[1]), "uint8")}

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Those of the grid, with exponents 0."""
        assert self.grid.group_size is not None
        exponents = low.new_zeros(low.shape[1] * self.grid.group_size)
        return self.grid.qparams_of_range(low, high, clip) | stored_exponents(exponents)

    def encode(self, weight: torch.Tensor, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Nearest codes of the columns without their powers of two."""
        return self.grid.encode(weight / self.input_scale(qparams), qparams)

    def decode(self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Float32 `[n_rows, n_columns]`."""
        return self.grid.decode(codes, qparams).mul_(self.input_scale(qparams))

    def input_scale(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The powers of two, float32 `[n_columns]`."""
        import torch

        return (tensors[EXPONENTS].reshape(-1).int() << 23).view(torch.float32)


def stored_exponents(exponents: torch.Tensor) -> dict[str, torch.Tensor]:
    """Whole numbers `[n_columns]` as they are stored; beyond 3 they saturate."""
    import torch

    limited = exponents.clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT) + _BIAS
    return {EXPONENTS: limited.to(torch.uint8)[None]}
