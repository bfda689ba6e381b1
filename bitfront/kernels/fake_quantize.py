"""Round a weight to integer levels by group: its codes, or only the error that rounding makes.

    level = min(max(round(weight / scale + zero_point), first), last)
    codes [n_rows, n_columns] = level - first
    error [n_candidates, n_rows, n_groups] = sum importance * (weight - scale * (level - zero))^2

`first` is -2^(b-1) without a zero point and 0 with one (`bitfront.formats.int_grouped`). A search
for the clip of each group rounds a weight once for every candidate; here all of them share one
read of the weight, and no rounded weight is ever written. Halves round to even, as in torch; the
codes are those of torch bit by bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_TILE = 2048
_ROUND = tl.constexpr(1.5 * 2.0**23)
"""Added and taken away again, it leaves the nearest integer of any float32 below 2^22."""


def reference_codes(
    weight: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, num_bits: int
) -> torch.Tensor:
    """Codes by the formula above."""
    scaled = weight.reshape(*scale.shape, -1) / scale[..., None]
    level = _rounded(scaled, zero_point, num_bits)
    return (level - _first(zero_point, num_bits)).to(torch.uint8).reshape(weight.shape)


def reference_errors(
    weight: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    num_bits: int,
    importance: torch.Tensor | None = None,
) -> torch.Tensor:
    """Errors by the formula above, in the dtype of the arguments."""
    groups = weight.reshape(*scale.shape[1:], -1)
    residual = groups * (1 / scale)[..., None]
    level = _rounded(residual, zero_point, num_bits)
    residual = residual - level if zero_point is None else residual + zero_point[..., None] - level
    squares = residual.square()
    if importance is not None:
        squares = squares * importance.reshape(scale.shape[-1], -1)
    return squares.sum(dim=-1) * scale.square()


def _rounded(scaled: torch.Tensor, zero_point: torch.Tensor | None, num_bits: int) -> torch.Tensor:
    first = _first(zero_point, num_bits)
    scaled = scaled if zero_point is None else scaled + zero_point[..., None]
    return scaled.round().clamp(first, first + 2**num_bits - 1)


def _first(zero_point: torch.Tensor | None, num_bits: int) -> int:
    return -(2 ** (num_bits - 1)) if zero_point is None else 0


@triton.jit
def _level(scaled, FIRST: tl.constexpr, LAST: tl.constexpr):
    # Clamped first, which changes nothing as both ends are integers: then the sum is exact.
    return tl.minimum(tl.maximum(scaled, FIRST), LAST) + _ROUND - _ROUND


@triton.jit
def _codes(
    # pointers
    weight, scale, zero_point, codes,
    # sizes
    n_groups, group_columns,
    # meta-parameters
    FIRST: tl.constexpr, LAST: tl.constexpr, HAS_ZERO: tl.constexpr,
    BLOCK_G: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(0).to(tl.int64) * BLOCK_G + tl.arange(0, BLOCK_G)
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    valid = (group < n_groups)[:, None] & (column < group_columns)[None, :]
    place = group[:, None] * group_columns + column[None, :]  # [BLOCK_G, BLOCK_C]
    scaled = tl.div_rn(
        tl.load(weight + place, mask=valid, other=0.0),
        tl.load(scale + group, mask=group < n_groups, other=1.0)[:, None],
    )
    if HAS_ZERO:
        scaled += tl.load(zero_point + group, mask=group < n_groups, other=0.0)[:, None]
    tl.store(codes + place, (_level(scaled, FIRST, LAST) - FIRST).to(tl.uint8), mask=valid)


@triton.jit
def _errors(
    # pointers
    weight, scale, zero_point, importance, error,
    # sizes
    n_groups, group_columns, groups_per_row, n_candidates,
    # meta-parameters
    FIRST: tl.constexpr, LAST: tl.constexpr, HAS_ZERO: tl.constexpr, WEIGHTED: tl.constexpr,
    BLOCK_G: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(0).to(tl.int64) * BLOCK_G + tl.arange(0, BLOCK_G)
    is_group = group < n_groups
    for candidate in range(n_candidates):
        s = tl.load(scale + candidate * n_groups + group, mask=is_group, other=1.0)
        inverse = tl.div_rn(1.0, s)
        if HAS_ZERO:
            z = tl.load(zero_point + candidate * n_groups + group, mask=is_group, other=0.0)
        total = tl.zeros([BLOCK_G], tl.float32)
        for start in range(0, group_columns, BLOCK_C):
            column = start + tl.arange(0, BLOCK_C)
            valid = is_group[:, None] & (column < group_columns)[None, :]
            place = group[:, None] * group_columns + column[None, :]  # [BLOCK_G, BLOCK_C]
            scaled = tl.load(weight + place, mask=valid, other=0.0) * inverse[:, None]
            if HAS_ZERO:
                scaled += z[:, None]
            residual = scaled - _level(scaled, FIRST, LAST)
            square = residual * residual
            if WEIGHTED:
                first = (group % groups_per_row)[:, None] * group_columns
                square *= tl.load(importance + first + column[None, :], mask=valid, other=0.0)
            total += tl.sum(tl.where(valid, square, 0.0), axis=1)
        tl.store(error + candidate * n_groups + group, total * (s * s), mask=is_group)


def _meta(zero_point: torch.Tensor | None, num_bits: int, columns: int) -> dict[str, int | bool]:
    first, block = _first(zero_point, num_bits), min(_TILE, triton.next_power_of_2(columns))
    return {
        "FIRST": first,
        "LAST": first + 2**num_bits - 1,
        "HAS_ZERO": zero_point is not None,
        "BLOCK_G": max(1, _TILE // block),
        "BLOCK_C": block,
        "enable_fp_fusion": False,  # torch rounds the product, then the sum
    }


def run_round_to_codes(
    weight: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, num_bits: int
) -> torch.Tensor:
    """Codes of the nearest levels, uint8 `[n_rows, n_columns]`.

    Args:
        weight: float32 `[n_rows, n_columns]`.
        scale: float32 `[n_rows, n_groups]`.
        zero_point: of the same shape; None for symmetric levels.
        num_bits: bits of a code, 2 to 8.
    """
    weight, scale = weight.contiguous(), scale.contiguous()
    columns = weight.numel() // scale.numel()
    meta = _meta(zero_point, num_bits, columns)
    codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    grid = (
        triton.cdiv(scale.numel(), meta["BLOCK_G"]),
        triton.cdiv(columns, meta["BLOCK_C"]),
    )
    zeros = scale if zero_point is None else zero_point.contiguous()
    _codes[grid](weight, scale, zeros, codes, scale.numel(), columns, **meta)
    return codes


def run_rounding_errors(
    weight: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    num_bits: int,
    importance: torch.Tensor | None = None,
) -> torch.Tensor:
    """Squared error of every group under every candidate, float32 as `scale`.

    Args:
        weight: float32 `[n_rows, n_columns]`.
        scale: float32 `[n_candidates, n_rows, n_groups]`.
        zero_point: of the same shape; None for symmetric levels.
        num_bits: bits of a code, 2 to 8.
        importance: weight of each column, float32 `[n_columns]`; None for 1.
    """
    weight, scale = weight.contiguous(), scale.contiguous()
    n_groups = scale[0].numel()
    columns = weight.numel() // n_groups
    meta = _meta(zero_point, num_bits, columns)
    error = torch.empty_like(scale)
    _errors[(triton.cdiv(n_groups, meta["BLOCK_G"]),)](
        weight,
        scale,
        scale if zero_point is None else zero_point.contiguous(),
        scale if importance is None else importance.contiguous(),
        error, n_groups, columns, scale.shape[2], len(scale),
        WEIGHTED=importance is not None,
        **meta,
    )  # fmt: skip
    return error


round_to_codes = torch.library.custom_op(
    "bitfront::round_to_codes", run_round_to_codes, mutates_args=(), device_types="cuda"
)
rounding_errors = torch.library.custom_op(
    "bitfront::rounding_errors", run_rounding_errors, mutates_args=(), device_types="cuda"
)


@round_to_codes.register_fake
def _(
    weight: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, num_bits: int
) -> torch.Tensor:
    return torch.empty_like(weight, dtype=torch.uint8)


@rounding_errors.register_fake
def _(
    weight: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    num_bits: int,
    importance: torch.Tensor | None = None,
) -> torch.Tensor:
    return torch.empty_like(scale)


round_to_codes.register_kernel("cpu")(reference_codes)
rounding_errors.register_kernel("cpu")(reference_errors)
