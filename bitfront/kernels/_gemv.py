"""One activation row times a packed weight: fp32 products in registers, no tensor cores.

    out [n_splits, n_rows] = x [n_columns] @ weight[:, part of the columns].T

A program makes BLOCK_N outputs from its share of the columns. Every word of a plane is loaded
once; its fields are then unrolled, each a run of columns of the tile.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bitfront.kernels._codes import (
    E4M3_SCALE,
    columns,
    fields_per_scale,
    lanes_of,
    levels,
    load_scale,
    load_words,
    n_fields,
)


@triton.jit
def _activations(x, order, column, valid):
    """Float32 `[BLOCK_W]`: x at columns, or where `order` says they are."""
    if order is not None:
        column = tl.load(order + column, mask=valid, other=0)
    return tl.load(x + column, mask=valid, other=0.0).to(tl.float32)


@triton.jit
def _tile(
    acc, x, order, first_column, arrays, words, row, column, valid, n_groups,
    scale, zero_point,
    BLOCK: tl.constexpr, LANES: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """`acc` and the products of one tile of words."""
    GROUP: tl.constexpr = BLOCK[2]
    RUN: tl.constexpr = fields_per_scale(BLOCK)
    for g in tl.static_range(n_fields(BLOCK) // RUN):
        part = tl.zeros([BLOCK_N, BLOCK_W], tl.float32)
        total = tl.zeros([BLOCK_W], tl.float32)
        for i in tl.static_range(RUN):
            for lane in tl.static_range(LANES):
                place = first_column + column + (g * RUN + i) * BLOCK[4][0][1] + lane
                number = _activations(x, order, place, valid)
                level = levels(words, arrays[5], g * RUN + i, lane, BLOCK)
                part += level * number[None, :]
                total += number
        if GROUP > 0:
            group = (column + g * RUN * BLOCK[4][0][1]) // GROUP
            offset = row * n_groups + group[None, :]
            scale = load_scale(arrays[3], offset, valid[None, :], BLOCK)
            if arrays[4] is not None:
                zero_point = tl.load(arrays[4] + offset, mask=valid[None, :], other=0)
                zero_point = zero_point.to(tl.float32)
        if arrays[4] is not None:
            part -= zero_point * total[None, :]
        acc += part * scale
    return acc


@triton.jit
def _sum(
    x, order, first_column, arrays, strides, row, split,
    BLOCK: tl.constexpr, SPLITS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Float32 `[BLOCK_N]`: this split's part of the outputs."""
    LANES: tl.constexpr = lanes_of(BLOCK, 32)
    acc = tl.zeros([BLOCK_N, BLOCK_W], tl.float32)
    # Scale and zero point of the whole row; of groups they are loaded where the group is.
    scale, zero_point = 1.0, 0.0
    if BLOCK[2] == 0:
        scale = load_scale(arrays[3], row, row >= 0, BLOCK)
        if arrays[4] is not None:
            zero_point = tl.load(arrays[4] + row).to(tl.float32)
    n_words = strides[0]
    share = tl.cdiv(tl.cdiv(n_words, BLOCK_W), SPLITS) * BLOCK_W
    for start in range(split * share, tl.minimum(split * share + share, n_words), BLOCK_W):
        word = start + tl.arange(0, BLOCK_W)
        valid = word < n_words
        words = load_words(arrays, strides, row, word, valid[None, :], LANES, BLOCK)
        column = columns(word * LANES, BLOCK)
        acc = _tile(
            acc, x, order, first_column, arrays, words, row, column, valid, strides[3],
            scale, zero_point, BLOCK, LANES, BLOCK_N, BLOCK_W,
        )  # fmt: skip
    out = tl.sum(acc, axis=1)
    if BLOCK[3] == E4M3_SCALE:
        out *= tl.load(arrays[5])
    return out


@triton.jit
def gemv(
    # pointers
    x, order, bias, blocks, out,
    # sizes
    strides, first_columns, n_rows, n_outputs,
    # meta-parameters
    BLOCKS: tl.constexpr, SPLITS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Grid `(programs of all segments, SPLITS)`; out is `[SPLITS, n_outputs]`."""
    split = tl.program_id(1)
    first_tile = 0
    first_row = 0
    for s in tl.static_range(len(BLOCKS)):
        tile = tl.program_id(0) - first_tile
        n_tiles = tl.cdiv(n_rows[s], BLOCK_N)
        if (tile >= 0) & (tile < n_tiles):
            own = tile * BLOCK_N + tl.arange(0, BLOCK_N)
            # Rows beyond the last read the last again; they are not stored.
            row = tl.minimum(own, n_rows[s] - 1).to(tl.int64)[:, None]
            acc = tl.zeros([BLOCK_N], tl.float32)
            for p in tl.static_range(len(BLOCKS[s])):
                acc += _sum(
                    x, order, first_columns[p], blocks[s][p], strides[s][p], row, split,
                    BLOCKS[s][p], SPLITS, BLOCK_N, BLOCK_W,
                )  # fmt: skip
            at = split.to(tl.int64) * n_outputs + first_row + own
            if bias is not None:
                if SPLITS == 1:
                    acc += tl.load(bias + first_row + own, mask=own < n_rows[s]).to(tl.float32)
            tl.store(out + at, acc.to(out.dtype.element_ty), mask=own < n_rows[s])
        first_tile += n_tiles
        first_row += n_rows[s]
