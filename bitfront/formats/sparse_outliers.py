"""Integers for most weights, and the few largest of each row in float16 beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from math import ceil
from typing import TYPE_CHECKING

from bitfront.errors import InvalidArgument
from bitfront.formats._derived import Derived
from bitfront.formats.base import FLOAT16_MAX, Format, StoredTensor
from bitfront.formats.int_grouped import IntGrouped

if TYPE_CHECKING:
    import torch

VALUES, COLUMNS = "outliers", "outlier_columns"


@dataclass(frozen=True)
class SparseOutliers(Derived):
    """Dense integers plus a sparse matrix: `grid + S`, S with as many numbers in every row.

    SqueezeLLM (Kim et al. 2023, arXiv:2306.07629, section 4.2) and SpQR (Dettmers et al. 2023,
    arXiv:2306.03078, section 4) take the largest or most sensitive weights, some per thousand, out
    of the matrix, so that the groups they were in have finer steps. Here each row gives up the
    same number of its largest: bytes then depend on the shape alone, and rows can be read one by
    one. Sizes weighted by the power of their inputs were tried, and did worse. An outlier costs 32
    bits, half of them its column; 10 per thousand are 0.32 bits per weight. Prefer it with a scale
    per row (`int2_channel_sparse10`) to small groups, which take more. Decoded before it is
    multiplied: no kernel adds S.

    Args:
        grid: integers for the rest.
        per_mille: share of the columns of each row, in thousandths, rounded up.
    """

    grid: IntGrouped = field(default_factory=lambda: IntGrouped(4, None))
    per_mille: int = 5

    def __post_init__(self) -> None:
        if not 1 <= self.per_mille <= 100:
            raise InvalidArgument(
                f"per_mille={self.per_mille}: outliers are 1 to 100 thousandths of a row."
            )

    @property
    def base(self) -> IntGrouped:
        """The grid of the rest."""
        return self.grid

    @property
    def name(self) -> str:
        """`int3_channel_sparse5`."""
        return f"{self.grid.name}_sparse{self.per_mille}"

    @classmethod
    def catalogue(cls) -> tuple[SparseOutliers, ...]:
        """2 to 4 bits with zero points per row and per 128, 5 and 10 per thousand."""
        fields = product((2, 3, 4), (None, 128), (5, 10))
        return tuple(cls(IntGrouped(bits, size), share) for bits, size, share in fields)

    def n_outliers(self, n_columns: int) -> int:
        """In each row."""
        return ceil(n_columns * self.per_mille / 1000)

    def fits(self, shape: tuple[int, int]) -> bool:
        """Whether the grid does, and 16 bits hold a column."""
        return self.grid.fits(shape) and shape[1] <= 1 << 16

    def stored_beside(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Values and columns of the outliers of each row."""
        outliers = shape[0], self.n_outliers(shape[1])
        return {VALUES: StoredTensor(outliers, "float16"), COLUMNS: StoredTensor(outliers, "int16")}

    def parts(self, shape: tuple[int, int]) -> tuple[tuple[Format, int], ...]:
        """The whole: what multiplies the grid alone would leave the outliers out."""
        return ((self, shape[1]),)

    def taken_out(
        self, weight: torch.Tensor, importance: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """The outliers, by rising column."""
        import torch

        columns = weight.abs().topk(self.n_outliers(weight.shape[1]), dim=1).indices
        columns = columns.sort(dim=1).values
        values = weight.gather(1, columns).clamp_(-FLOAT16_MAX, FLOAT16_MAX)
        unsigned = columns - (columns >= 1 << 15).long() * (1 << 16)
        return {VALUES: values.to(torch.float16), COLUMNS: unsigned.to(torch.int16)}

    def rest(self, weight: torch.Tensor, taken: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The weight less its outliers, float32 of the same shape."""
        columns, values = taken[COLUMNS].long() & 0xFFFF, taken[VALUES].float()
        return weight.scatter_add(1, columns, -values)

    def qparams(
        self,
        weight: torch.Tensor,
        clip: float | torch.Tensor = 1.0,
        importance: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The outliers, and those of the grid for the rest."""
        taken = self.taken_out(weight)
        return self.grid.qparams(self.rest(weight, taken), clip) | taken

    def encode(self, weight: torch.Tensor, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Nearest codes of the rest."""
        return self.grid.encode(self.rest(weight, qparams), qparams)

    def decode(self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Float32 `[n_rows, n_columns]`."""
        dense = self.grid.decode(codes, qparams)
        columns, values = qparams[COLUMNS].long() & 0xFFFF, qparams[VALUES].float()
        return dense.scatter_add_(1, columns, values)
