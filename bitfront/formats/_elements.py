"""Numbers of one code, by their bits: small floats, e4m3 bytes, integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from bitfront.formats.base import Format, StoredTensor, by_upper_half, upper_half_codes

if TYPE_CHECKING:
    import torch

E4M3_LARGEST = 448.0


@cache
def float_levels(exponent_bits: int, mantissa_bits: int) -> tuple[float, ...]:
    """Number of each bit pattern of a small float that has neither infinity nor NaN.

    The bias is 2^(exponent_bits - 1) - 1; exponent 0 has no hidden one.

    >>> float_levels(2, 1)[:8]
    (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    """
    bias, steps = 2 ** (exponent_bits - 1) - 1, 2**mantissa_bits
    sizes = [
        2.0 ** (max(exponent, 1) - bias) * ((exponent > 0) + mantissa / steps)
        for exponent in range(2**exponent_bits)
        for mantissa in range(steps)
    ]
    return (*sizes, *(-size for size in sizes))


class Integers(Format):
    """Consecutive integers from `first`; the codes count from it."""

    @property
    def first(self) -> int:
        """Number of code 0."""
        return -(1 << self.num_bits - 1)

    def levels(self) -> tuple[float, ...]:
        """Consecutive integers."""
        return tuple(float(self.first + code) for code in range(2**self.num_bits))

    def nearest(self, scaled: torch.Tensor) -> torch.Tensor:
        """Codes by rounding; no table."""
        import torch

        return self.rounded(scaled).sub_(self.first).to(torch.uint8)

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes plus the first integer; no table."""
        values = codes.float()
        return values.add_(self.first) if self.first else values

    def rounded(self, scaled: torch.Tensor) -> torch.Tensor:
        """Nearest integer in range."""
        return scaled.round().clamp_(self.first, self.first + 2**self.num_bits - 1)


@dataclass(frozen=True)
class Float4(Format):
    """Levels of the 4-bit float e2m1 (OCP Microscaling Formats 1.0, section 5.3.3).

    The code is the bit pattern: sign, two exponent bits, one mantissa bit. -0 is never produced.
    """

    num_bits: int = field(default=4, init=False)

    def levels(self) -> tuple[float, ...]:
        """0, 0.5, 1, 1.5, 2, 3, 4, 6, then the same negated."""
        sizes = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
        return (*sizes, *(-size for size in sizes))

    def nearest(self, scaled: torch.Tensor) -> torch.Tensor:
        """Codes by the upper half of each float: exact, the midpoints are bfloat16 numbers."""
        return by_upper_half(upper_half_codes(self.levels()), scaled)


@dataclass(frozen=True)
class Float6(Format):
    """Levels of the 6-bit floats e2m3 and e3m2 (OCP Microscaling Formats 1.0, section 5.3.2).

    Args:
        exponent_bits: 2 for e2m3, 3 for e3m2; the other bits but the sign are the mantissa.
    """

    exponent_bits: int = 2
    num_bits: int = field(default=6, init=False)

    @property
    def element(self) -> str:
        """`e2m3` or `e3m2`."""
        return f"e{self.exponent_bits}m{5 - self.exponent_bits}"

    @property
    def largest(self) -> float:
        """7.5 or 28."""
        return self.levels()[31]

    def levels(self) -> tuple[float, ...]:
        """Of the bit patterns: sign, exponent, mantissa. -0 is never produced."""
        return float_levels(self.exponent_bits, 5 - self.exponent_bits)


class E4m3(Format):
    """e4m3 bytes, stored as a float8_e4m3fn matrix without padding.

    OCP 8-bit Floating Point Specification 1.0; codes are the bit patterns.
    """

    def levels(self) -> tuple[float, ...]:
        """Value of each bit pattern; the two NaN patterns stand for the largest value."""
        sizes = (*float_levels(4, 3)[:127], E4M3_LARGEST)
        return (*sizes, *(-size for size in sizes))

    def stored(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """One float8 matrix and the scales."""
        return {"weight": StoredTensor(shape, "float8_e4m3fn")} | self.stored_qparams(shape)

    def nearest(self, scaled: torch.Tensor) -> torch.Tensor:
        """Bit patterns of the nearest e4m3 values; beyond 448 saturates."""
        import torch

        return scaled.clamp(-E4M3_LARGEST, E4M3_LARGEST).to(torch.float8_e4m3fn).view(torch.uint8)

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        """Values of bit patterns."""
        import torch

        return codes.view(torch.float8_e4m3fn).float()

    def pack(
        self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The codes as a float8 matrix."""
        import torch

        return {"weight": codes.view(torch.float8_e4m3fn)} | dict(qparams)

    def unpack(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, int]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The float8 matrix as codes."""
        import torch

        qparams = {name: tensors[name] for name in self.stored_qparams(shape)}
        return tensors["weight"].view(torch.uint8), qparams
