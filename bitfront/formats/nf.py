"""Normal-float codes: levels at quantiles of a Gaussian, float16 scale per group."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from statistics import NormalDist
from typing import TYPE_CHECKING

from bitfront.errors import InvalidArgument
from bitfront.formats.base import GROUP_SIZES, GroupScaled, float16_scale

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Nf(GroupScaled):
    """Levels at Gaussian quantiles in [-1, 1] with an exact zero.

    The scale is the largest size in the group. QLoRA (Dettmers et al. 2023, arXiv:2305.14314,
    section 3) for 4 bits, generalised: 2^(b-1) positive and 2^(b-1) - 1 negative quantiles, evenly
    spaced in probability between 1/2 and 1 - (1/(2^b) + 1/(2^b - 1)) / 4, divided by the largest.
    Costs 16 bits per group. Prefer it over integers where weights are Gaussian and the engine
    decodes through a table.

    Args:
        num_bits: bits of one code: 2, 3 or 4.
        group_size: columns that share a scale: 32, 64 or 128.
    """

    num_bits: int = 4
    group_size: int = 64

    def __post_init__(self) -> None:
        if not 2 <= self.num_bits <= 4:
            raise InvalidArgument(f"Normal-float formats have 2 to 4 bits, not {self.num_bits}.")
        if self.group_size not in GROUP_SIZES:
            raise InvalidArgument(
                f"Group size {self.group_size} of a normal-float format is not 32, 64 or 128."
            )

    @property
    def name(self) -> str:
        """`nf4_g64`."""
        return f"nf{self.num_bits}_g{self.group_size}"

    @classmethod
    def catalogue(cls) -> tuple[Nf, ...]:
        """2 to 4 bits, group 32, 64 and 128."""
        return tuple(cls(*fields) for fields in product((2, 3, 4), GROUP_SIZES))

    def levels(self) -> tuple[float, ...]:
        """Gaussian quantiles, rising from -1 to 1."""
        return _quantiles(self.num_bits)

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Largest size of the group."""
        return {"scale": float16_scale((-low).maximum(high) * clip)}


@cache
def _quantiles(num_bits: int) -> tuple[float, ...]:
    n_levels, half = 2**num_bits, 2 ** (num_bits - 1)
    last = 1 - (1 / n_levels + 1 / (n_levels - 1)) / 4
    quantile = NormalDist().inv_cdf

    def side(n: int) -> list[float]:
        step = (last - 0.5) / n
        return [quantile(last - step * i) / quantile(last) for i in range(n - 1, -1, -1)]

    return (*(-level for level in reversed(side(half - 1))), 0.0, *side(half))
