"""Integer weights on the low-bit operators that torch has for CPUs.

Both read bfloat16 activations and keep a copy of the weight in their own layout: 4 bits a weight
and two bfloat16 numbers a group for integers of 2 to 4 bits, 8 bits a weight for symmetric ones of
5 to 8 bits with one scale per row. For few tokens they beat even a weight that is kept decoded
(docs/kernels.md has the figures); other formats have no operator, other dtypes only slow ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from bitfront.formats.base import Format
from bitfront.formats.int_grouped import IntGrouped

MOST_TOKENS = 32
"""Up to so many tokens these operators beat decoding the weight and multiplying by it."""
MOST_TOKENS_KEPT = 4
"""And up to so many than multiplying by a bfloat16 weight that is kept decoded (AVX-512 only)."""
_VECTORS = torch.backends.cpu.get_cpu_capability()
_GROUPS = (128, 64, 32)
_ROWS = 16
_COLUMNS = 16
"""That one step over 8-bit codes reads: past the end of rows that are no multiple of it."""


@dataclass(frozen=True)
class LowBit:
    """A weight in the layout of one operator.

    Args:
        codes: as `_convert_weight_to_int4pack_for_cpu` lays out 4-bit codes, or int8 codes.
        scales: bfloat16 `[n_groups, n_rows, 2]` with zeros, or `[n_rows]`.
        group_size: columns to a scale; None for int8 codes.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    group_size: int | None

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """`x [..., n_columns] @ weight.T` in bfloat16."""
        rows = x.reshape(-1, x.shape[-1])
        out: torch.Tensor
        if self.group_size is None:
            # It reads from multiples of 32 bytes, where fresh tensors begin: what a file or NumPy
            # lent may begin anywhere.
            rows = rows.clone(memory_format=torch.contiguous_format)
            out = torch.ops.aten._weight_int8pack_mm(rows, self.codes, self.scales)
        else:
            out = torch.ops.aten._weight_int4pack_mm_for_cpu(
                rows.contiguous(), self.codes, self.group_size, self.scales
            )
        return out.reshape(*x.shape[:-1], out.shape[-1])


def most_tokens(is_kept: bool) -> int:
    """Tokens up to which the operators are the faster way on this CPU; 0 where they are not."""
    if is_kept:
        return MOST_TOKENS_KEPT if _VECTORS == "AVX512" else 0
    return MOST_TOKENS if _VECTORS in ("AVX2", "AVX512") else 0


def can_multiply(format: Format, shape: tuple[int, int]) -> bool:
    """Whether torch has an operator for a weight of this format and shape."""
    if not isinstance(format, IntGrouped):
        return False
    if format.num_bits <= 4:
        return shape[0] % _ROWS == 0 and _group_size(format, shape) is not None
    return format.symmetric and format.group_size is None and shape[1] % _COLUMNS == 0


def low_bit(format: Format, shape: tuple[int, int], tensors: Mapping[str, torch.Tensor]) -> LowBit:
    """The weight in the layout of its operator; only where `can_multiply`."""
    codes, qparams = format.unpack(tensors, shape)
    scale, zero_point = format.affine(qparams)
    half = 2 ** (format.num_bits - 1)
    if format.num_bits > 4:
        return LowBit((codes.int() - half).to(torch.int8), scale.reshape(-1).bfloat16(), None)
    size = _group_size(format, shape)
    assert size is not None
    # The operator's value is (code - 8) scale + zero. Narrow codes go around its 8: the larger
    # `zero` is, the more its rounding to bfloat16 costs (2 % of the output at 2 bits).
    codes = codes.int() + (8 - half)
    zero = 0 * scale if zero_point is None else (half - zero_point) * scale
    pairs = torch.stack([scale, zero], dim=-1).transpose(0, 1)
    if format.group_columns is None:
        pairs = pairs.expand(shape[1] // size, -1, -1)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    return LowBit(packed, pairs.bfloat16().contiguous(), size)


def _group_size(format: Format, shape: tuple[int, int]) -> int | None:
    if format.group_columns is not None:
        return format.group_columns if format.group_columns in _GROUPS else None
    return next((size for size in _GROUPS if shape[1] % size == 0), None)
