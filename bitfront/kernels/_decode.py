"""A packed weight written out in the dtype of the activations, and the sum of partial outputs."""

from __future__ import annotations

import triton
import triton.language as tl

from bitfront.kernels._codes import (
    E4M3_SCALE,
    columns,
    levels,
    load_scale,
    load_words,
    n_fields,
    plane_stride,
)


@triton.jit
def decode(
    # pointers
    arrays, out,
    # sizes
    strides, n_rows, n_columns, row_stride,
    # meta-parameters
    BLOCK: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """One block `[n_rows, n_columns]` into `out`; grid `(tiles of rows, tiles of words)`."""
    GROUP: tl.constexpr = BLOCK[2]
    own = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.minimum(own, n_rows - 1).to(tl.int64)[:, None]
    word = (tl.program_id(1) * BLOCK_W + tl.arange(0, BLOCK_W)).to(tl.uint32)
    valid = word < strides[0]
    words = load_words(arrays, strides, row, word[None, :], valid[None, :], 1, BLOCK)
    for field in tl.static_range(n_fields(BLOCK)):
        column = columns(word, 1, 1, BLOCK) + field * plane_stride(BLOCK, 0)
        # Columns that only pad the packing belong to no group.
        inside = (valid & (column < n_columns))[None, :] & (own < n_rows)[:, None]
        offset = row * strides[3] + (column // GROUP if GROUP > 0 else column * 0)[None, :]
        number = levels(words, arrays[5], row, n_columns >> 31, field, 0, 0, BLOCK)
        if arrays[4] is not None:
            number -= tl.load(arrays[4] + offset, mask=inside, other=0).to(tl.float32)
        scale = load_scale(arrays[3], offset, inside, BLOCK)
        if BLOCK[3] == E4M3_SCALE:
            scale *= tl.load(arrays[5])  # in this order: the bits of `Format.decode`
        number *= scale
        place = row * row_stride + column[None, :]
        tl.store(out + place, number.to(out.dtype.element_ty), mask=inside)


@triton.jit
def add_splits(
    # pointers
    parts, bias, out,
    # sizes
    n_outputs, n_elements,
    # meta-parameters
    SPLITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`out [n_elements] = sum of parts [SPLITS, n_elements]`, always in the same order."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < n_elements
    acc = tl.zeros([BLOCK], tl.float32)
    for split in tl.static_range(SPLITS):
        acc += tl.load(parts + split * n_elements + place, mask=inside, other=0.0)
    if bias is not None:
        acc += tl.load(bias + place % n_outputs, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, acc.to(out.dtype.element_ty), mask=inside)
