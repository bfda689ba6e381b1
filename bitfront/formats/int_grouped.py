"""Integers of 1 to 8 bits with one float16 scale, and a zero point if asymmetric, per group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from bitfront.errors import InvalidArgument
from bitfront.formats._elements import Integers
from bitfront.formats.base import GROUP_SIZES, StoredTensor, float16_scale, group_shape

if TYPE_CHECKING:
    import torch

_ALLOWED = (16, *GROUP_SIZES, None)


@dataclass(frozen=True)
class IntGrouped(Integers):
    """Evenly spaced levels: `scale * (code - zero_point)`, the format most engines read.

    Asymmetric: codes 0 to 2^b - 1, the range of a group with 0 included maps onto them, and the
    float16 zero point is not rounded to an integer, so both ends of the range are levels.
    Symmetric: codes stand for -2^(b-1) to 2^(b-1) - 1; the value of largest size maps onto
    -2^(b-1), so the scale may be negative and no level is wasted (ggml's Q4_0 does the same).

    Asymmetric costs 32 bits per group, symmetric 16: `int4_g64` takes 4.5 bits per weight,
    `int4_g64_sym` 4.25. Prefer asymmetric at 2 and 3 bits, symmetric from 5 bits up.

    Args:
        num_bits: bits of one code, 2 to 8; 1 only with a zero point.
        group_size: columns that share a scale: 16, 32, 64, 128, or None for the whole row.
        symmetric: without a zero point.
    """

    num_bits: int = 4
    group_size: int | None = 64
    symmetric: bool = False

    def __post_init__(self) -> None:
        if not 1 + self.symmetric <= self.num_bits <= 8:
            raise InvalidArgument(
                f"Integer formats have 2 to 8 bits, or 1 with a zero point, not {self.num_bits}."
            )
        if self.group_size not in _ALLOWED:
            raise InvalidArgument(
                f"Group size {self.group_size} of an integer format is not one of "
                "16, 32, 64, 128 or None (the whole row)."
            )

    @property
    def name(self) -> str:
        """`int4_g64`, `int4_g64_sym`, `int4_channel`, `int4_channel_sym`."""
        group = "channel" if self.group_size is None else f"g{self.group_size}"
        return f"int{self.num_bits}_{group}" + ("_sym" if self.symmetric else "")

    @property
    def group_columns(self) -> int | None:
        """The group size."""
        return self.group_size

    @classmethod
    def catalogue(cls) -> tuple[IntGrouped, ...]:
        """1 bit with zero point, 2 to 8 with and without; group 16 (but 1 bit) to 128, channel."""
        single = tuple(cls(1, size) for size in (*GROUP_SIZES, None))
        wider = product(range(2, 9), _ALLOWED, (False, True))
        return (*single, *(cls(*fields) for fields in wider))

    @property
    def first(self) -> int:
        """-2^(b-1) if symmetric, else 0."""
        return -(2 ** (self.num_bits - 1)) if self.symmetric else 0

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Float16 scale, and zero point if asymmetric, per group."""
        tensor = StoredTensor(group_shape(shape, self.group_size), "float16")
        return {"scale": tensor} if self.symmetric else {"scale": tensor, "zero_point": tensor}

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Scale over the clipped range, zero point where 0 falls."""
        import torch

        if self.symmetric:
            extreme = torch.where(-low > high, low, high)
            return {"scale": float16_scale(extreme * clip / -(2 ** (self.num_bits - 1)))}
        top = 2**self.num_bits - 1
        scale = float16_scale((high * clip / top) - (low * clip / top))
        zero_point = (-low * clip / scale.float()).clamp_(0, top)
        return {"scale": scale, "zero_point": zero_point.to(torch.float16)}

    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scale, and zero point if asymmetric, in float32."""
        scale = qparams["scale"].float()
        return scale, None if self.symmetric else qparams["zero_point"].float()
