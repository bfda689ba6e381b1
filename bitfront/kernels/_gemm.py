"""Activation rows times a packed weight on tensor cores, with fp32 accumulation.

    out [n_splits, n_tokens, n_outputs] = x [n_tokens, n_columns] @ weight[:, part of them].T

The weight tile is the left operand, so that its numbers go from the registers they were decoded in
to the tensor core; x transposed is the right one. Where a tile lies in one group per row, levels
are multiplied, which are exact in the dtype of x, and the group's zero point and scale are applied
to the fp32 sums: in bf16 the levels less their zero point would be off by an amount that a group
shares, which adds up wherever x has a mean. Elsewhere the numbers are scaled before they are
rounded.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bitfront.kernels._assembly import assembled_levels, can_assemble
from bitfront.kernels._codes import (
    E4M3_SCALE,
    block_at,
    columns,
    fields_per_scale,
    levels,
    load_plane,
    load_scale,
    load_words,
    n_fields,
    n_parts,
    n_planes,
    plane_stride,
    ratio,
)


@triton.constexpr_function
def scales_sums(BLOCK, BLOCK_W):
    """Whether each run of fields of a tile has one scale per row."""
    group, stride = int(BLOCK[2]), int(BLOCK[4][0][1])
    return group == 0 or (group >= int(BLOCK_W) and stride >= int(BLOCK_W))


@triton.constexpr_function
def n_rounds(BLOCK, BLOCK_W):
    """Tiles of the widest plane that one tile of the narrowest lasts for.

    Where every plane has a run for a tile; else narrower words are loaded beside each wide one.
    """
    planes = list(BLOCK[4])
    runs = len(planes) > 1 and all(int(stride) == int(BLOCK_W) for _, stride, _ in planes)
    return int(planes[-1][2]) // int(planes[0][2]) if runs else 1


@triton.jit
def _narrow(
    plane, row_offset, start, PLANE: tl.constexpr, BLOCK: tl.constexpr, BLOCK_W: tl.constexpr
):
    """Words of plane PLANE that last from container `start` of the widest plane on."""
    word = start // ratio(BLOCK, PLANE) + tl.arange(0, BLOCK_W)
    return load_plane(plane, row_offset + word[None, :], row_offset >= 0, 1, "")


@triton.jit
def _activations(x, order, token, n_tokens, n_columns, column, valid):
    """`[BLOCK_W, BLOCK_M]`: x transposed, or its columns where `order` says they are."""
    if order is not None:
        column = tl.load(order + column, mask=valid, other=0)
    place = token[None, :].to(tl.int64) * n_columns + column[:, None]
    return tl.load(x + place, mask=(token < n_tokens)[None, :] & valid[:, None], other=0.0)


@triton.jit
def _zero_points(arrays, offset, valid):
    return tl.load(arrays[4] + offset, mask=valid, other=0).to(tl.float32)


@triton.jit
def _tile(
    acc, x, order, first_column, arrays, words, row, token, start, column, valid, zero_point,
    n_groups, n_tokens, n_columns,
    BLOCK: tl.constexpr, DOT: tl.constexpr, ASSEMBLE: tl.constexpr, BLOCK_W: tl.constexpr,
    ROUND: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """`acc` and the products of one tile of words."""
    GROUP: tl.constexpr = BLOCK[2]
    STRIDE: tl.constexpr = plane_stride(BLOCK, 0)
    AFTER: tl.constexpr = scales_sums(BLOCK, BLOCK_W)
    RUN: tl.constexpr = fields_per_scale(BLOCK)
    DTYPE: tl.constexpr = x.dtype.element_ty
    BRAIN: tl.constexpr = DTYPE == tl.bfloat16
    ZERO: tl.constexpr = arrays[4] is not None
    # See `raised`. Words go from where they were loaded to the tensor core in registers, but only
    # past constants.
    nothing = 0
    if n_planes(BLOCK) > 1 and ROUNDS == 1:
        nothing = n_columns >> 31
    for g in tl.static_range(n_fields(BLOCK) // RUN):
        part = tl.zeros(acc.shape, tl.float32)
        total = tl.zeros([BLOCK_W, acc.shape[1]], tl.float32)
        if GROUP > 0:
            if AFTER:  # one group for the tile: that of its first column
                offset = row * n_groups + (columns(start, 1, 1, BLOCK) + g * RUN * STRIDE) // GROUP
                inside = row >= 0
            else:
                offset = row * n_groups + ((column + g * RUN * STRIDE) // GROUP)[None, :]
                inside = valid[None, :]
            scale = load_scale(arrays[3], offset, inside, BLOCK)
            if ZERO:
                zero_point = _zero_points(arrays, offset, inside)
        for i in tl.static_range(RUN):
            if ASSEMBLE and AFTER and can_assemble(BLOCK, BRAIN):
                weight = assembled_levels(words, g * RUN + i, ROUND, BLOCK, DTYPE)
            else:
                weight = levels(words, arrays[5], row, nothing, g * RUN + i, 0, ROUND, BLOCK)
                if not AFTER:
                    if ZERO:
                        weight -= zero_point
                    weight *= scale
            number = _activations(
                x, order, token, n_tokens, n_columns,
                first_column + column + (g * RUN + i) * STRIDE, valid,
            )  # fmt: skip
            part = tl.dot(weight.to(DOT), number.to(DOT), part, input_precision="ieee")
            if ZERO and AFTER:
                total += number.to(tl.float32)
        if ZERO and AFTER:
            part -= zero_point * tl.sum(total, axis=0)[None, :]
        if GROUP > 0 and AFTER:
            part *= scale
        acc += part
    return acc


@triton.jit
def _sum(
    x, order, first_column, arrays, strides, row, token, split, n_tokens, n_columns,
    BLOCK: tl.constexpr, DOT: tl.constexpr, ASSEMBLE: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Float32 `[BLOCK_N, BLOCK_M]`: this split's part of the outputs."""
    acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    zero_point = 0.0
    if BLOCK[2] == 0 and arrays[4] is not None:
        zero_point = _zero_points(arrays, row, row >= 0)
    n_words = strides[0]
    ROUNDS: tl.constexpr = n_rounds(BLOCK, BLOCK_W)
    STEP: tl.constexpr = ROUNDS * BLOCK_W
    share = tl.cdiv(tl.cdiv(n_words, STEP), SPLITS) * STEP
    for begin in range(split * share, tl.minimum(split * share + share, n_words), STEP):
        for r in tl.static_range(ROUNDS):
            start = begin + r * BLOCK_W
            word = (start + tl.arange(0, BLOCK_W)).to(tl.uint32)
            valid = word < n_words
            if ROUNDS == 1:
                words = load_words(arrays, strides, row, word[None, :], valid[None, :], 1, BLOCK)
            else:
                first = load_plane(arrays[0], row * strides[0] + word[None, :], row >= 0, 1, "")
                if r % ratio(BLOCK, 1) == 0:
                    second = _narrow(arrays[1], row * strides[1], start, 1, BLOCK, BLOCK_W)
                if n_planes(BLOCK) == 2:
                    third = second
                elif r % ratio(BLOCK, 2) == 0:
                    third = _narrow(arrays[2], row * strides[2], start, 2, BLOCK, BLOCK_W)
                words = (first, second, third)
            acc = _tile(
                acc, x, order, first_column, arrays, words, row, token, start,
                columns(word, 1, 1, BLOCK), valid, zero_point, strides[3], n_tokens, n_columns,
                BLOCK, DOT, ASSEMBLE, BLOCK_W, r, ROUNDS,
            )  # fmt: skip
    if BLOCK[2] == 0:
        acc *= load_scale(arrays[3], row, row >= 0, BLOCK)
    if BLOCK[3] == E4M3_SCALE:
        acc *= tl.load(arrays[5])
    return acc


@triton.jit
def gemm(
    # pointers
    x, order, bias, blocks, out,
    # sizes
    strides, first_columns, n_rows, n_outputs, n_tokens, n_columns,
    # meta-parameters
    BLOCKS: tl.constexpr, DOT: tl.constexpr, ASSEMBLE: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Grid `(tiles of all segments, SPLITS, tiles of tokens)`."""
    split = tl.program_id(1)
    token = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    first_tile = 0
    first_row = 0
    for s in tl.static_range(len(BLOCKS)):
        tile = tl.program_id(0) - first_tile
        n_tiles = tl.cdiv(n_rows[s], BLOCK_N)
        if (tile >= 0) & (tile < n_tiles):
            own = tile * BLOCK_N + tl.arange(0, BLOCK_N)
            # Rows beyond the last read the last again; they are not stored.
            row = tl.minimum(own, n_rows[s] - 1).to(tl.int64)[:, None]
            acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
            for p in tl.static_range(n_parts(BLOCKS, s)):
                acc += _sum(
                    x, order, first_columns[p], blocks[s][p], strides[s][p], row, token, split,
                    n_tokens, n_columns, block_at(BLOCKS, s, p), DOT, ASSEMBLE, SPLITS,
                    BLOCK_M, BLOCK_N, BLOCK_W,
                )  # fmt: skip
            inside = own < n_rows[s]
            if bias is not None and SPLITS == 1:
                added = tl.load(bias + first_row + own, mask=inside, other=0)
                acc += added.to(tl.float32)[:, None]
            line = (split * n_tokens + token).to(tl.int64) * n_outputs
            place = line[None, :] + (first_row + own)[:, None]
            stored = inside[:, None] & (token < n_tokens)[None, :]
            tl.store(out + place, acc.to(out.dtype.element_ty), mask=stored)
        first_tile += n_tiles
        first_row += n_rows[s]
