"""Two ternary planes, each with a scale of its own per group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from bitfront import packing
from bitfront.errors import InvalidArgument
from bitfront.formats._sums import GroupGrid
from bitfront.formats.base import StoredTensor

if TYPE_CHECKING:
    import torch

GROUP_SIZES = (64, 128)
_TRITS = (-1.0, 0.0, 1.0)


@dataclass(frozen=True)
class TritPlanes(GroupGrid):
    """`a1 t1 + a2 t2` with t1, t2 in -1, 0, 1: nine levels, fitted to each group.

    PTQTP (Xiao et al. 2025, arXiv:2509.16989, section 3): the two scales of a group by ridge
    regression on the trits and the trits as the nearest of the nine sums, by turns. Both planes
    are stored five trits to a byte: 3.2 bits, and two float16 scales per group, so that
    `trit_planes_g128` takes 3.45 bits per weight. The paper multiplies by additions alone; here
    weights are decoded first.

    Args:
        group_size: columns that share scales: 64 or 128.
    """

    group_size: int = 128
    num_bits: int = field(default=4, init=False)

    def __post_init__(self) -> None:
        if self.group_size not in GROUP_SIZES:
            raise InvalidArgument(f"Group size {self.group_size} of trit planes is not 64 or 128.")

    @property
    def name(self) -> str:
        """`trit_planes_g128`."""
        return f"trit_planes_g{self.group_size}"

    @property
    def code_bits(self) -> float:
        """16/5: two trits, each a fifth of a byte."""
        return 2 * 8 / packing.TRITS

    def n_code_bits(self, shape: tuple[int, int]) -> float:
        """Of whole bytes."""
        return 2 * 8 * prod(packing.trits_shape(shape))

    @classmethod
    def catalogue(cls) -> tuple[TritPlanes, ...]:
        """Group 64 and 128."""
        return tuple(map(cls, GROUP_SIZES))

    def digits(self) -> tuple[tuple[float, ...], ...]:
        """Code `3 (t1 + 1) + t2 + 1`."""
        return tuple(product(_TRITS, _TRITS))

    def starts(self, low: torch.Tensor, high: torch.Tensor) -> list[torch.Tensor]:
        """Scales of about 5 to 3, whose levels are closest near 0, and nine even steps.

        Even steps alone end in a worse optimum: 30 % more error on tails of Student's t.
        """
        import torch

        size = (-low).maximum(high)
        shares = ((0.5, 0.3), (0.4, 0.25), (0.675, 0.225))
        return [torch.stack([size * share for share in pair], dim=2) for pair in shares]

    def stored(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Bytes of each plane, then scales."""
        plane = StoredTensor(packing.trits_shape(shape), "uint8")
        return {"trits_1": plane, "trits_2": plane} | self.stored_qparams(shape)

    def pack(
        self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Five trits of a plane to a byte."""
        planes = {"trits_1": codes // 3, "trits_2": codes % 3}
        return {k: packing.pack_trits(t) for k, t in planes.items()} | dict(qparams)

    def unpack(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, int]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Codes of the planes."""
        first, second = (
            packing.unpack_trits(tensors[key], shape[1]) for key in ("trits_1", "trits_2")
        )
        return first * 3 + second, {"coefficients": tensors["coefficients"]}
