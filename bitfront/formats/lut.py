"""Codes of 2 to 4 bits that look their value up in a table of the row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar

from bitfront.errors import InvalidArgument
from bitfront.formats._clusters import centres
from bitfront.formats.base import (
    FLOAT16_MAX,
    Format,
    StoredTensor,
    float16_scale,
    group_shape,
)

if TYPE_CHECKING:
    import torch

_ALL = slice(None)
_ALLOWED = (64, 128, None)


@dataclass(frozen=True)
class Lut(Format):
    """Any levels: each row has a float16 table of 2^b of them, fitted to its weights.

    Without groups a value is `table[row, code]` (SqueezeLLM, Kim et al. 2023, arXiv:2306.07629,
    section 4.1). With groups it is `scale[row, group] * table[row, code]`, the table fitted to
    weights over the largest size of their group (any4, Elhoushi and Johnson 2025,
    arXiv:2507.04610, without its offsets). Tables are fitted by k-means, weighted by the
    importance of each column where a quantizer knows it. Costs 2^b * 16 bits a row: at 4096
    columns 0.0625 bits per weight for 4 bits, at 64 as much as the codes. Prefer it for wide rows
    whose weights are not Gaussian.

    Args:
        num_bits: bits of one code: 2, 3 or 4.
        group_size: columns that share a scale: 64, 128, or None for no scales.
    """

    num_bits: int = 4
    group_size: int | None = None
    learned: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 2 <= self.num_bits <= 4:
            raise InvalidArgument(f"Look-up formats have 2 to 4 bits, not {self.num_bits}.")
        if self.group_size not in _ALLOWED:
            raise InvalidArgument(
                f"Group size {self.group_size} of a look-up format is not 64, 128 or None."
            )

    @property
    def name(self) -> str:
        """`lut4_channel`, `lut4_g128`."""
        group = "channel" if self.group_size is None else f"g{self.group_size}"
        return f"lut{self.num_bits}_{group}"

    @property
    def group_columns(self) -> int | None:
        """The group size."""
        return self.group_size

    @classmethod
    def catalogue(cls) -> tuple[Lut, ...]:
        """2 to 4 bits, group 64, 128 and none."""
        return tuple(cls(*fields) for fields in product((2, 3, 4), _ALLOWED))

    def levels(self) -> tuple[float, ...]:
        """None: every row has its own."""
        return ()

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Float16 table per row, and scale per group."""
        table = {"table": StoredTensor((shape[0], 2**self.num_bits), "float16")}
        if self.group_size is None:
            return table
        return {"scale": StoredTensor(group_shape(shape, self.group_size), "float16")} | table

    def qparams(
        self,
        weight: torch.Tensor,
        clip: float | torch.Tensor = 1.0,
        importance: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Scales of the groups, and the tables that k-means finds."""
        import torch

        low, high = self.group_range(weight)
        importance = torch.ones_like(weight[:1]) if importance is None else importance
        if self.group_size is None:
            return {"table": _float16(centres(weight, importance, 2**self.num_bits))}
        scale = float16_scale((-low).maximum(high) * clip)
        per_column = scale.float().repeat_interleave(self.group_size, dim=1)
        # An error of a level costs as much as the scale makes of it.
        table = centres(weight / per_column, importance * per_column.square(), 2**self.num_bits)
        return {"scale": scale, "table": _float16(table)}

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Even levels over the range of the row, where nothing else is known of the weights."""
        import torch

        share = torch.linspace(0, 1, 2**self.num_bits, device=low.device)
        if self.group_size is not None:
            table = (2 * share - 1).half().repeat(len(low), 1)
            return {"scale": float16_scale((-low).maximum(high) * clip), "table": table}
        return {"table": _float16((low + share * (high - low)) * clip)}

    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The scale in float32, 1 where there is none."""
        import torch

        if self.group_size is None:
            return torch.ones_like(qparams["table"][:, :1], dtype=torch.float32), None
        return qparams["scale"].float(), None

    def nearest_in(
        self,
        scaled: torch.Tensor,
        qparams: Mapping[str, torch.Tensor],
        rows: slice = _ALL,
        groups: slice = _ALL,
    ) -> torch.Tensor:
        """Codes of the nearest numbers in the row's table, which rises."""
        import torch

        table = qparams["table"][rows].float()
        middles = (table[:, 1:] + table[:, :-1]) / 2
        codes = torch.searchsorted(middles, scaled.reshape(len(table), -1), out_int32=True)
        return codes.reshape(scaled.shape).to(torch.uint8)

    def values_in(
        self,
        codes: torch.Tensor,
        qparams: Mapping[str, torch.Tensor],
        rows: slice = _ALL,
        groups: slice = _ALL,
    ) -> torch.Tensor:
        """Numbers of the row's table."""
        table = qparams["table"][rows].float()
        return table.gather(1, codes.reshape(len(table), -1).long()).reshape(codes.shape)


def _float16(table: torch.Tensor) -> torch.Tensor:
    return table.clamp(-FLOAT16_MAX, FLOAT16_MAX).half()
