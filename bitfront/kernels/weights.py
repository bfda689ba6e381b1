"""Products with a weight as its format stores it: turned, cut by columns, in an order of its own.

`dequant_matmul` knows blocks; here are the inputs made to go with them. Inputs are turned once for
a product, `torch.ops.bitfront.turn`, in float32 and rounded to their dtype again; gradients flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bitfront.formats._rotation import Rotation
from bitfront.formats.base import Format
from bitfront.kernels._blocks import has_kernel
from bitfront.kernels.base import can_run_triton
from bitfront.kernels.dequant_matmul import decode, dequant_matmul


@torch.library.custom_op("bitfront::turn", mutates_args=(), schema="(Tensor rows) -> Tensor")
def turn(rows: torch.Tensor) -> torch.Tensor:
    """Rows `[..., n_columns]` turned by the `Rotation` of their length, of the same dtype."""
    return Rotation(rows.shape[-1]).turn(rows)


@torch.library.custom_op("bitfront::turn_back", mutates_args=(), schema="(Tensor rows) -> Tensor")
def turn_back(rows: torch.Tensor) -> torch.Tensor:
    """The inverse of `turn`, and its gradient."""
    return Rotation(rows.shape[-1]).undo(rows)


def is_plain(format: Format, shape: tuple[int, int]) -> bool:
    """Whether `dequant_matmul` takes the stored tensors of a weight, and its inputs as they are."""
    return has_kernel(format) and len(format.parts(shape)) == 1


def multiply(
    x: torch.Tensor,
    format: Format,
    tensors: Mapping[str, torch.Tensor],
    shape: tuple[int, int],
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """`x [..., n_columns] @ weight.T + bias`, of the dtype of x.

    Args:
        x: fp16 or bf16 on a GPU, any float dtype elsewhere.
        format: of the weight.
        tensors: stored, by name, in the order of `Format.stored`.
        shape: of the weight.
        bias: `[n_rows]`.
    """
    x = prepared(x, format, tensors, shape)
    parts = format.parts(shape)
    order = format.column_order(tensors, shape[1])
    names, widths = [part.name for part, _ in parts], [width for _, width in parts]
    stored = _of_parts(format, tensors, shape, order)
    return dequant_matmul(x, stored, names, [shape[0]], widths, bias, order)


def prepared(
    x: torch.Tensor, format: Format, tensors: Mapping[str, torch.Tensor], shape: tuple[int, int]
) -> torch.Tensor:
    """Inputs as `format.base` is multiplied by: turned, or scaled by column."""
    if format.rotation(shape[1]) is not None:
        x = torch.ops.bitfront.turn(x)
    scale = format.input_scale(tensors)
    return x if scale is None else x * scale.to(x.dtype)


def decoded(
    format: Format,
    tensors: Mapping[str, torch.Tensor],
    shape: tuple[int, int],
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """The weight `[n_rows, n_columns]` where its tensors are, by a kernel where there is one."""
    parts = format.parts(shape)
    device = next(iter(tensors.values())).device
    if not (can_run_triton(device) and all(has_kernel(part) for part, _ in parts)):
        return format.decode_stored(tensors, shape).to(dtype)
    order = format.column_order(tensors, shape[1])
    names, widths = [part.name for part, _ in parts], [width for _, width in parts]
    weight: torch.Tensor = decode(
        _of_parts(format, tensors, shape, order), names, [shape[0]], widths, dtype
    )
    if order is not None:
        weight = torch.empty_like(weight).index_copy_(1, order, weight)
    scale = format.input_scale(tensors)
    if scale is not None:
        weight = weight * scale.to(dtype)
    rotation = format.rotation(shape[1])
    return weight if rotation is None else rotation.undo(weight)


def _of_parts(
    format: Format,
    tensors: Mapping[str, torch.Tensor],
    shape: tuple[int, int],
    order: torch.Tensor | None,
) -> list[torch.Tensor]:
    if order is None:
        return [tensors[name] for name in format.parts(shape)[0][0].stored(shape)]
    return list(tensors.values())[:-1]


def _turned_back(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
    turned: torch.Tensor = torch.ops.bitfront.turn_back(gradient)
    return turned


@turn.register_fake
def _(rows: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(rows, memory_format=torch.contiguous_format)


@turn_back.register_fake
def _(rows: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(rows, memory_format=torch.contiguous_format)


turn.register_autograd(_turned_back)
