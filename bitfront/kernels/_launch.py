"""Launches of the dequant_matmul kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch.nn import functional

from bitfront import packing
from bitfront.errors import InvalidArgument
from bitfront.kernels._blocks import BlockMatrix
from bitfront.kernels._decode import add_splits, decode
from bitfront.kernels._gemm import gemm
from bitfront.kernels._gemv import gemv
from bitfront.kernels.launches import Launch

_DOT = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}
emulated = False
"""Whether an interpreted kernel finds inline PTX emulated."""


def multiply(
    x: torch.Tensor,
    matrix: BlockMatrix,
    tensors: Sequence[torch.Tensor],
    order: torch.Tensor | None,
    bias: torch.Tensor | None,
    launch: Launch,
) -> torch.Tensor:
    """`x [n_tokens, n_columns] @ weight.T + bias`, of the dtype of x; see `dequant_matmul.run`."""
    if launch.kernel == "decode":
        return _decoded(x, matrix, tensors, order, bias)
    n_tokens, n_outputs = len(x), matrix.shape[0]
    if launch.kernel == "gemv" and (n_tokens > 1 or not all(b.has_words for b in matrix)):
        raise InvalidArgument(
            f"gemv takes one token and columns in whole words, not {n_tokens} tokens of "
            f"{matrix.n_columns} columns in {', '.join(matrix.formats)}: use gemm."
        )
    padding = packing.padded_columns(matrix.n_columns[-1]) - matrix.n_columns[-1]
    if padding and order is not None:
        x, order = x.index_select(-1, order), None
    x = functional.pad(x, (0, padding)) if padding else x.contiguous()
    if launch.kernel == "gemv" and x.data_ptr() % 8:  # which reads up to 64 bits of x at once
        x = x.clone()
    out = x.new_empty((n_tokens, n_outputs))
    split = launch.splits > 1
    parts = x.new_empty((launch.splits, n_tokens, n_outputs), dtype=torch.float32) if split else out
    _product(x, matrix, tensors, order, bias, parts, launch)
    if split:
        n_elements = n_tokens * n_outputs
        block = 256
        add_splits[(triton.cdiv(n_elements, block),)](
            parts, bias, out, n_outputs, n_elements, SPLITS=launch.splits, BLOCK=block,
            num_warps=2, enable_fp_fusion=True,
        )  # fmt: skip
    return out


def _product(
    x: torch.Tensor,
    matrix: BlockMatrix,
    tensors: Sequence[torch.Tensor],
    order: torch.Tensor | None,
    bias: torch.Tensor | None,
    out: torch.Tensor,
    launch: Launch,
) -> None:
    single = launch.kernel == "gemv"
    word_bits = 32 if single else 16
    segments = list(zip(matrix.blocks, matrix.split(tensors), strict=True))
    # A table of float32 would be copied ahead, number by number, as if it were activations.
    table = torch.float32 if single else torch.float16
    arrays = tuple(tuple(b.arrays(t, table) for b, t in zip(*s, strict=True)) for s in segments)
    strides = tuple(tuple(b.strides(word_bits) for b in segment) for segment in matrix.blocks)
    compiled = tuple(tuple(b.compiled for b in segment) for segment in matrix.blocks)
    n_tiles = sum(triton.cdiv(rows, launch.block_n) for rows in matrix.n_rows)
    options: dict[str, Any] = {
        "BLOCKS": compiled,
        "SPLITS": launch.splits,
        "BLOCK_N": launch.block_n,
        "BLOCK_W": launch.block_w,
        "num_warps": launch.num_warps,
        "num_stages": launch.num_stages,
        "enable_fp_fusion": True,
    }
    pointers = (x, order, bias, arrays, out)
    sizes = (strides, matrix.first_columns, matrix.n_rows, matrix.shape[0])
    if single:
        gemv[(n_tiles, launch.splits)](*pointers, *sizes, **options)
        return
    # The interpreter cannot multiply bfloat16, nor run PTX without the emulator of the tests.
    interpreted = x.device.type == "cpu"
    dot = _DOT[torch.float32 if interpreted else x.dtype]
    assemble = emulated or not interpreted
    tokens = triton.cdiv(len(x), launch.block_m)
    gemm[(n_tiles, launch.splits, tokens)](
        *pointers,
        *sizes,
        len(x),
        x.shape[1],
        DOT=dot,
        ASSEMBLE=assemble,
        BLOCK_M=launch.block_m,
        **options,
    )


def _decoded(
    x: torch.Tensor,
    matrix: BlockMatrix,
    tensors: Sequence[torch.Tensor],
    order: torch.Tensor | None,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """The product by way of a decoded weight: for so many tokens that decoding it costs little."""
    weight = decoded(matrix, tensors, x.dtype)
    x = x if order is None else x.index_select(-1, order)
    return functional.linear(x, weight, bias if bias is None else bias.to(x.dtype))


def decoded(
    matrix: BlockMatrix, tensors: Sequence[torch.Tensor], dtype: torch.dtype
) -> torch.Tensor:
    """The weight `[n_outputs, n_columns]` in the order it is stored in."""
    weight = torch.empty(matrix.shape, dtype=dtype, device=tensors[0].device)
    block_n, block_w = 32, 32
    first_row = 0
    for blocks, stored in zip(matrix.blocks, matrix.split(tensors), strict=True):
        for block, first, own in zip(blocks, matrix.first_columns, stored, strict=True):
            strides = block.strides(16)
            tiles = triton.cdiv(block.shape[0], block_n), triton.cdiv(strides[0], block_w)
            decode[tiles](
                block.arrays(own), weight[first_row:, first:], strides, *block.shape,
                weight.shape[1], BLOCK=block.compiled, BLOCK_N=block_n, BLOCK_W=block_w,
                num_warps=4, enable_fp_fusion=True,
            )  # fmt: skip
        first_row += blocks[0].shape[0]
    return weight
