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
    INTEGER,
    block_at,
    columns,
    excess,
    fields_per_scale,
    lanes_of,
    levels,
    load_scale,
    load_words,
    low_bit,
    n_fields,
    n_parts,
    n_planes,
    plane_stride,
    plane_width,
    position,
    raised,
)


@triton.jit
def _activations(x, order, column, valid, LANES: tl.constexpr):
    """The x of all lanes of `[BLOCK_W]` words, as integers of as many 16 bits.

    Args:
        x: fp16 or bf16 `[n_columns]`.
        order: None, or columns of x in the order of the weight.
        column: of lane 0, in units of LANES.
        valid: which words there are.
        LANES: containers in a word.
    """
    BITS: tl.constexpr = tl.int64 if LANES == 4 else tl.int32
    if order is None:
        lanes = tl.load(x.to(tl.pointer_type(BITS), bitcast=True) + column, mask=valid, other=0)
    else:
        pointer = x.to(tl.pointer_type(tl.uint16), bitcast=True)
        lanes = tl.zeros(column.shape, BITS)
        for lane in tl.static_range(LANES):
            place = tl.load(order + column * LANES + lane, mask=valid, other=0)
            lanes |= tl.load(pointer + place, mask=valid, other=0).to(BITS) << (16 * lane)
    return lanes


@triton.jit
def _lane(lanes, LANE: tl.constexpr, DTYPE: tl.constexpr):
    """Float32 of one lane of `_activations`."""
    half = (lanes >> (16 * LANE)).to(tl.int32)
    if DTYPE == tl.bfloat16:
        number = (half << 16).to(tl.float32, bitcast=True)
    else:
        number = (half & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    return number


@triton.constexpr_function
def words_per_scale(BLOCK, LANES):
    """Neighbouring words that share a scale, at most the four that a thread loads at once."""
    stride, group = int(BLOCK[4][0][1]), int(BLOCK[2])
    return min(4, max(1, min(stride, group) // int(LANES)))


@triton.jit
def _spread(number, BLOCK_N: tl.constexpr, BLOCK_W: tl.constexpr):
    """`[BLOCK_N, n, 1]` to `[BLOCK_N, BLOCK_W]`, each number repeated for its neighbours."""
    N: tl.constexpr = number.shape[1]
    wide = tl.broadcast_to(number, [BLOCK_N, N, BLOCK_W // N])
    return tl.reshape(wide, [BLOCK_N, BLOCK_W])


@triton.jit
def _tile(
    acc, x, order, first_column, arrays, words, row, start, column, valid, n_words, n_groups,
    scale, zero_point,
    BLOCK: tl.constexpr, LANES: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """`acc` and the products of one tile of words."""
    GROUP: tl.constexpr = BLOCK[2]
    SHARE: tl.constexpr = words_per_scale(BLOCK, LANES)
    lead = (start + SHARE * tl.arange(0, BLOCK_W // SHARE)).to(tl.uint32)
    STRIDE: tl.constexpr = plane_stride(BLOCK, 0)
    RUN: tl.constexpr = fields_per_scale(BLOCK)
    nothing = n_words >> 31  # see `raised`
    for g in tl.static_range(n_fields(BLOCK) // RUN):
        part = tl.zeros([BLOCK_N, BLOCK_W], tl.float32)
        total = tl.zeros([BLOCK_W], tl.float32)
        over = tl.zeros([BLOCK_W], tl.float32)
        for i in tl.static_range(RUN):
            place = column + first_column // LANES + (g * RUN + i) * (STRIDE // LANES)
            lanes = _activations(x, order, place, valid, LANES)
            for lane in tl.static_range(LANES):
                number = _lane(lanes, lane, x.dtype.element_ty)
                if BLOCK[0] == INTEGER:
                    over += number * excess(BLOCK, g * RUN + i, lane, 0, 0)
                    for p in tl.static_range(n_planes(BLOCK)):
                        part += number[None, :] * raised(
                            words[p], nothing,
                            position(BLOCK, p, g * RUN + i, lane, 0), plane_width(BLOCK, p),
                            low_bit(BLOCK, p),
                        )  # fmt: skip
                else:
                    level = levels(words, arrays[5], row, nothing, g * RUN + i, lane, 0, BLOCK)
                    part += level * number[None, :]
                total += number
        if BLOCK[0] == INTEGER:
            part -= over[None, :]
        if GROUP > 0:
            group = (columns(lead, 1, LANES, BLOCK) + g * RUN * STRIDE) // GROUP
            offset = row[:, :, None] * n_groups + group[None, :, None]
            inside = (lead < n_words)[None, :, None]
            scale = _spread(load_scale(arrays[3], offset, inside, BLOCK), BLOCK_N, BLOCK_W)
            if arrays[4] is not None:
                zero_point = tl.load(arrays[4] + offset, mask=inside, other=0).to(tl.float32)
                zero_point = _spread(zero_point, BLOCK_N, BLOCK_W)
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
        word = (start + tl.arange(0, BLOCK_W)).to(tl.uint32)
        valid = word < n_words
        words = load_words(arrays, strides, row, word[None, :], valid[None, :], LANES, BLOCK)
        column = columns(word, LANES, LANES, BLOCK)
        acc = _tile(
            acc, x, order, first_column, arrays, words, row, start, column, valid, n_words,
            strides[3], scale, zero_point, BLOCK, LANES, BLOCK_N, BLOCK_W,
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
            for p in tl.static_range(n_parts(BLOCKS, s)):
                acc += _sum(
                    x, order, first_columns[p], blocks[s][p], strides[s][p], row, split,
                    block_at(BLOCKS, s, p), SPLITS, BLOCK_N, BLOCK_W,
                )  # fmt: skip
            at = split.to(tl.int64) * n_outputs + first_row + own
            if bias is not None and SPLITS == 1:
                acc += tl.load(bias + first_row + own, mask=own < n_rows[s]).to(tl.float32)
            tl.store(out + at, acc.to(out.dtype.element_ty), mask=own < n_rows[s])
        first_tile += n_tiles
        first_row += n_rows[s]
