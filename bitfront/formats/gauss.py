"""Grids made for Gaussian weights, one or two columns to a code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitfront.errors import InvalidArgument
from bitfront.formats._grids import about_nearest_pairs, nearest_pairs, pairs, scalar_grid
from bitfront.formats.base import Format, StoredTensor, float16_scale, group_shape

if TYPE_CHECKING:
    import torch

_GROUPS = (64, 128, None)
_SIZES = {1: (4, 8, 16), 2: (16, 32, 64, 128, 256)}
"""Points of a grid by columns to a code."""


@dataclass(frozen=True)
class Gauss(Format):
    """Levels of least squared error on Gaussian numbers, times the root mean square of the group.

    A grid of n points in p dimensions takes log2(n) / p bits of codes: 2, 3 and 4 for single
    numbers (Max 1960, "Quantizing for minimum distortion"), 2, 2.5, 3, 3.5 and 4 for pairs, which
    err less at equal bits (HIGGS, Malinovskii et al. 2024, arXiv:2411.17525, section 4). Costs 16
    bits per group besides. Pairs are decoded and multiplied as plain weights, also on a GPU.
    Prefer `higgs`, which makes the numbers Gaussian first, unless turning inputs costs too much.

    Args:
        size: points of the grid: 4, 8 or 16 numbers; 16, 32, 64, 128 or 256 pairs.
        dimension: columns to a code: 1 or 2.
        group_size: columns that share a scale: 64, 128 or None for the whole row.
    """

    size: int = 16
    dimension: int = 1
    group_size: int | None = 64

    def __post_init__(self) -> None:
        if self.size not in _SIZES.get(self.dimension, ()):
            raise InvalidArgument(
                f"A grid of size={self.size}, dimension={self.dimension} is not one of 4, 8, 16 "
                "numbers or 16, 32, 64, 128, 256 pairs."
            )
        if self.group_size not in _GROUPS:
            raise InvalidArgument(
                f"Group size {self.group_size} of a Gaussian grid is not 64, 128 or None."
            )

    @property
    def num_bits(self) -> int:
        """Bits of a code, which is `dimension` columns."""
        return self.size.bit_length() - 1

    @property
    def columns_per_code(self) -> int:
        """The dimension."""
        return self.dimension

    @property
    def name(self) -> str:
        """`gauss_n16p1_g64`."""
        group = "channel" if self.group_size is None else f"g{self.group_size}"
        return f"gauss_n{self.size}p{self.dimension}_{group}"

    @property
    def group_columns(self) -> int | None:
        """The group size."""
        return self.group_size

    @classmethod
    def catalogue(cls) -> tuple[Gauss, ...]:
        """Every size; single numbers in groups of 64 and 128, pairs in whole rows, too."""
        return tuple(
            cls(size, dimension, group_size)
            for dimension, sizes in _SIZES.items()
            for size in sizes
            for group_size in _GROUPS[: dimension + 1]
        )

    def levels(self) -> tuple[float, ...]:
        """The numbers of the grid; none where it is of pairs."""
        return scalar_grid(self.size) if self.dimension == 1 else ()

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Float16 scale per group."""
        return {"scale": StoredTensor(group_shape(shape, self.group_size), "float16")}

    def group_range(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The root mean square of each group, negated and as it is."""
        groups = weight.reshape(weight.shape[0], -1, self.group_size or weight.shape[1])
        largest = groups.abs().amax(dim=2).clamp_(min=2.0**-126)
        size = (groups / largest[..., None]).square_().mean(dim=2).sqrt_().mul_(largest)
        return -size, size

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """The root mean square of the group."""
        return {"scale": float16_scale((-low).maximum(high) * clip)}

    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The scale in float32."""
        return qparams["scale"].float(), None

    def nearest(self, scaled: torch.Tensor) -> torch.Tensor:
        """Codes of the nearest points."""
        return super().nearest(scaled) if self.dimension == 1 else nearest_pairs(scaled, self.size)

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        """Numbers of the points, `[..., n * dimension]` of codes `[..., n]`."""
        if self.dimension == 1:
            return super().values(codes)
        found = pairs(self.size, codes.device).index_select(0, codes.reshape(-1).int())
        return found.reshape(*codes.shape[:-1], -1)

    def rounded(self, scaled: torch.Tensor) -> torch.Tensor:
        """The nearest points, pairs by the cell of a fine mesh."""
        if self.dimension == 1:
            return super().rounded(scaled)
        return about_nearest_pairs(scaled, self.size)
