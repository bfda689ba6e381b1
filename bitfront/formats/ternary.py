"""Ternary weights: -1, 0 or 1 times a float16 scale per group, five to a byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, ClassVar

from bitfront import packing
from bitfront.errors import InvalidArgument
from bitfront.formats.base import GroupScaled, StoredTensor, float16_scale

if TYPE_CHECKING:
    import torch

GROUP_SIZES = (64, 128)


@dataclass(frozen=True)
class Ternary(GroupScaled):
    """Levels -1, 0 and 1; a byte holds five weights in base 3: 1.6 bits, and 16 bits per group.

    The scale is the one of least squared error, weighted by the importance of columns: with the k
    largest sizes of a group rounded to the scale and the others to 0, the error falls by
    (sum of h |w|)^2 / (sum of h) over those k, and the best k is found by sorting (Li and Liu 2016,
    "Ternary Weight Networks", arXiv:1605.04711, section 2.2, without its Gaussian assumption).
    1.58-bit models (BitNet b1.58, Ma et al. 2024, arXiv:2402.17764) are trained to such weights;
    others lose much, yet less than at the next cheaper choice, leaving a layer out. `ternary_g64`
    takes 1.85 bits per weight, and padding where 5 does not divide the columns. Decoded before it
    is multiplied: no kernel reads base 3.

    Args:
        group_size: columns that share a scale: 64 or 128.
    """

    group_size: int = 128
    num_bits: int = field(default=2, init=False)
    learned: ClassVar[bool] = True
    in_planes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.group_size not in GROUP_SIZES:
            raise InvalidArgument(f"Group size {self.group_size} of ternary is not 64 or 128.")

    @property
    def name(self) -> str:
        """`ternary_g128`."""
        return f"ternary_g{self.group_size}"

    @property
    def code_bits(self) -> float:
        """8/5: what a weight takes in its byte."""
        return 8 / packing.TRITS

    def n_code_bits(self, shape: tuple[int, int]) -> float:
        """Of whole bytes."""
        return 8 * prod(packing.trits_shape(shape))

    @classmethod
    def catalogue(cls) -> tuple[Ternary, ...]:
        """Group 64 and 128."""
        return tuple(map(cls, GROUP_SIZES))

    def levels(self) -> tuple[float, ...]:
        """-1, 0, 1."""
        return -1.0, 0.0, 1.0

    def stored(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Bytes of five trits, then scales."""
        trits = StoredTensor(packing.trits_shape(shape), "uint8")
        return {"trits": trits} | self.stored_qparams(shape)

    def qparams(
        self,
        weight: torch.Tensor,
        clip: float | torch.Tensor = 1.0,
        importance: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The scale of least squared error, times `clip`."""
        return {"scale": float16_scale(best_scale(weight, self.group_size, importance) * clip)}

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Largest size of the group."""
        return {"scale": float16_scale((-low).maximum(high) * clip)}

    def pack(
        self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Five codes to a byte."""
        return {"trits": packing.pack_trits(codes)} | dict(qparams)

    def unpack(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, int]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Codes of the bytes."""
        return packing.unpack_trits(tensors["trits"], shape[1]), {"scale": tensors["scale"]}


def best_scale(
    weight: torch.Tensor, group_size: int, importance: torch.Tensor | None = None
) -> torch.Tensor:
    """Scale of the ternary numbers nearest to each group, `[n_rows, n_groups]`.

    Args:
        weight: float32 `[n_rows, n_columns]`.
        group_size: columns of a group.
        importance: of each column, float32 `[n_columns]`, or of each weight; all 1 by default.
    """
    import torch

    size, order = weight.abs().reshape(len(weight), -1, group_size).sort(descending=True)
    if importance is None:
        total = size.cumsum(dim=2)
        mass = torch.arange(1.0, group_size + 1, device=weight.device).expand_as(size)
    else:
        by_row = importance if importance.ndim == 2 else importance[None]
        heavy = by_row.reshape(len(by_row), -1, group_size).expand_as(size).gather(2, order)
        heavy = heavy + importance.mean().clamp(min=1e-30) * 1e-6  # columns that no input reaches
        total, mass = (size * heavy).cumsum(dim=2), heavy.cumsum(dim=2)
    mean = total / mass
    best = (mean.sqrt() * total.sqrt()).argmax(dim=2, keepdim=True)  # squares would overflow
    return mean.gather(2, best)[..., 0]
