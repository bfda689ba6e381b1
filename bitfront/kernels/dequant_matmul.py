"""Activations times a packed weight, which is decoded as it is multiplied.

    y [..., n_outputs] = x [..., n_columns] @ weight.T + bias

The weight is a matrix of blocks: segments of rows (q, k and v; gate and up), each cut into the same
parts of columns, every block with its own format and width. One launch does all of them. Its stored
tensors (`Format.stored`) come as one list, block by block, segment by segment. With `order`, column
j of the weight multiplies column `order[j]` of x: columns of equal width can so lie together.

`torch.ops.bitfront.dequant_matmul` picks the kernel on a GPU (`launches`) and the reference
elsewhere; gradients flow to x and bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch.nn import functional

from bitfront.errors import InvalidArgument
from bitfront.formats.base import Format
from bitfront.kernels import launches
from bitfront.kernels._blocks import BlockMatrix, block_matrix, has_kernel
from bitfront.kernels.base import Kernel, can_run_triton

_CHUNK_WEIGHTS = 1 << 19
"""Weights that a CPU decodes at a time: their 2 MB of float32 stay in its cache."""
_WEIGHT = "Tensor[] tensors, str[] formats, int[] n_rows, int[] n_columns"


def supports(format: Format, device: torch.device, dtype: torch.dtype) -> bool:
    """Formats with scales and a code for each column, on a GPU, for fp16 and bf16 activations."""
    is_half = dtype in (torch.float16, torch.bfloat16)
    return has_kernel(format) and is_half and can_run_triton(device)


def decode_reference(
    matrix: BlockMatrix, tensors: Sequence[torch.Tensor], dtype: torch.dtype
) -> torch.Tensor:
    """The weight `[n_outputs, n_columns]` in the order it is stored in."""
    stored = matrix.split(tensors)
    segments = [
        torch.cat([block.decoded(own).to(dtype) for block, own in zip(*pair, strict=True)], dim=1)
        if len(matrix.n_columns) > 1
        else pair[0][0].decoded(pair[1][0]).to(dtype)
        for pair in zip(matrix.blocks, stored, strict=True)
    ]
    return segments[0] if len(segments) == 1 else torch.cat(segments)


def reference(
    x: torch.Tensor,
    matrix: BlockMatrix,
    tensors: Sequence[torch.Tensor],
    bias: torch.Tensor | None = None,
    order: torch.Tensor | None = None,
) -> torch.Tensor:
    """Decode the weight in the dtype of x, on a CPU a few rows at a time, and multiply."""
    x = x if order is None else x.index_select(-1, order)
    if x.is_cuda or prod(matrix.shape) <= _CHUNK_WEIGHTS:
        return functional.linear(x, decode_reference(matrix, tensors, x.dtype), bias)
    parts, first = [], 0
    for rows, own in _row_chunks(matrix, tensors):
        weight = decode_reference(rows, own, x.dtype)
        last = first + rows.shape[0]
        parts.append(functional.linear(x, weight, None if bias is None else bias[first:last]))
        first = last
    return torch.cat(parts, dim=-1)


def _row_chunks(
    matrix: BlockMatrix, tensors: Sequence[torch.Tensor]
) -> Iterator[tuple[BlockMatrix, list[torch.Tensor]]]:
    """The weight in pieces of rows of one segment, each with its stored tensors."""
    step = max(1, _CHUNK_WEIGHTS // matrix.shape[1])
    for blocks, stored in zip(matrix.blocks, matrix.split(tensors), strict=True):
        n_rows, formats = blocks[0].shape[0], tuple(block.format.name for block in blocks)
        for start in range(0, n_rows, step):
            # Tensors with another first dimension are shared by all rows (scale of nvfp4).
            own = [t[start : start + step] if len(t) == n_rows else t for s in stored for t in s]
            rows = min(step, n_rows - start)
            yield block_matrix((rows,), matrix.n_columns, formats), own


def run(
    x: torch.Tensor,
    matrix: BlockMatrix,
    tensors: Sequence[torch.Tensor],
    bias: torch.Tensor | None = None,
    order: torch.Tensor | None = None,
    launch: launches.Launch | None = None,
) -> torch.Tensor:
    """The product by Triton kernels.

    Args:
        x: fp16 or bf16 `[..., n_columns]`.
        matrix: the cuts and formats of the weight.
        tensors: its stored tensors, in order, on the device of x.
        bias: `[n_outputs]`.
        order: int `[n_columns]`, column of x for each column of the weight.
        launch: instead of the tuned or default one.

    Returns:
        `[..., n_outputs]` of the dtype of x, accumulated in fp32; equal inputs give equal bits.
    """
    from bitfront.kernels._launch import multiply

    rows = x.reshape(-1, x.shape[-1])
    if not len(rows):
        return x.new_empty((*x.shape[:-1], matrix.shape[0]))
    if launch is None:
        device = torch.cuda.get_device_name(x.device) if x.is_cuda else ""
        launch = launches.launch(len(rows), matrix, str(x.dtype).removeprefix("torch."), device)
    out = multiply(rows, matrix, tensors, order, bias, launch)
    return out.reshape(*x.shape[:-1], matrix.shape[0])


KERNEL = Kernel("dequant_matmul", supports, reference, run)


@torch.library.custom_op(
    "bitfront::dequant_matmul",
    mutates_args=(),
    # No defaults: gradients would have to match the arguments that a caller left out.
    schema=f"(Tensor x, {_WEIGHT}, Tensor? bias, Tensor? order) -> Tensor",
)
def _operator(
    x: torch.Tensor,
    tensors: Sequence[torch.Tensor],
    formats: Sequence[str],
    n_rows: Sequence[int],
    n_columns: Sequence[int],
    bias: torch.Tensor | None,
    order: torch.Tensor | None,
) -> torch.Tensor:
    matrix = block_matrix(tuple(n_rows), tuple(n_columns), tuple(formats))
    if x.shape[-1] != matrix.shape[1]:
        raise InvalidArgument(
            f"x has {x.shape[-1]} columns, the packed weight {matrix.shape[1]}: they must agree."
        )
    fused = all(supports(block.format, x.device, x.dtype) for block in matrix)
    return (run if fused else reference)(x, matrix, tensors, bias, order)


def dequant_matmul(
    x: torch.Tensor,
    tensors: Sequence[torch.Tensor],
    formats: Sequence[str],
    n_rows: Sequence[int],
    n_columns: Sequence[int],
    bias: torch.Tensor | None = None,
    order: torch.Tensor | None = None,
) -> torch.Tensor:
    """The product by the operator: `run` where it is supported, else `reference`.

    Args:
        x: `[..., n_columns]`, fp16 or bf16 on a GPU, any float dtype elsewhere.
        tensors: stored tensors of the weight, block by block.
        formats: name of the format of each block.
        n_rows: rows of each segment.
        n_columns: columns of each part.
        bias: `[n_outputs]`.
        order: int `[n_columns]`, column of x for each column of the weight.

    Returns:
        `[..., n_outputs]` of the dtype of x.

    Raises:
        InvalidArgument: formats, shapes and tensors do not go together.
    """
    product: torch.Tensor = torch.ops.bitfront.dequant_matmul(
        x, tensors, formats, n_rows, n_columns, bias, order
    )
    return product


@torch.library.custom_op(
    "bitfront::decode", mutates_args=(), schema=f"({_WEIGHT}, ScalarType dtype) -> Tensor"
)
def decode(
    tensors: Sequence[torch.Tensor],
    formats: Sequence[str],
    n_rows: Sequence[int],
    n_columns: Sequence[int],
    dtype: torch.dtype,
) -> torch.Tensor:
    """The decoded weight `[n_outputs, n_columns]`; arguments as of `dequant_matmul`."""
    matrix = block_matrix(tuple(n_rows), tuple(n_columns), tuple(formats))
    known = all(has_kernel(block.format) for block in matrix)
    if known and can_run_triton(tensors[0].device) and dtype.is_floating_point:
        from bitfront.kernels._launch import decoded

        return decoded(matrix, tensors, dtype)
    return decode_reference(matrix, tensors, dtype)


@_operator.register_fake
def _(x: Any, tensors: Any, formats: Any, n_rows: Any, n_columns: Any, *_: Any) -> torch.Tensor:
    empty: torch.Tensor = x.new_empty((*x.shape[:-1], sum(n_rows)))
    return empty


@decode.register_fake
def _(tensors: Any, formats: Any, n_rows: Any, n_columns: Any, dtype: Any) -> torch.Tensor:
    empty: torch.Tensor = tensors[0].new_empty((sum(n_rows), sum(n_columns)), dtype=dtype)
    return empty


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, tensors, *cuts, bias, order = inputs
    ctx.save_for_backward(*tensors, *([] if order is None else [order]))
    ctx.cuts, ctx.n_tensors, ctx.dtype, ctx.has_bias = cuts, len(tensors), x.dtype, bias is not None


def _gradients(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    tensors, order = ctx.saved_tensors[: ctx.n_tensors], ctx.saved_tensors[ctx.n_tensors :]
    weight = torch.ops.bitfront.decode(list(tensors), *ctx.cuts, ctx.dtype)
    to_x = gradient @ weight
    if order:
        to_x = torch.zeros_like(to_x).index_copy(-1, order[0].long(), to_x)
    to_bias = gradient.reshape(-1, gradient.shape[-1]).sum(0) if ctx.has_bias else None
    return to_x, [None] * ctx.n_tensors, None, None, None, to_bias, None


_operator.register_autograd(_gradients, setup_context=_keep)
