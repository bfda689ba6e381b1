"""Products with a weight as its format stores it: turned, cut by columns, in an order of its own.

`dequant_matmul` knows blocks; here are the inputs made to go with them. Inputs are turned once for
a product, `torch.ops.bitfront.turn`, in float32 and rounded to their dtype again; then, where the
format is a pair, to what it says of inputs, `torch.ops.bitfront.round_inputs`. Gradients flow, as
if nothing was rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bitfront.formats._activations import ACTIVATIONS
from bitfront.formats._rotation import Rotation
from bitfront.formats.base import Format
from bitfront.formats.column_scaled import ColumnScaled
from bitfront.kernels._blocks import has_kernel
from bitfront.kernels.dequant_matmul import decode, dequant_matmul


@torch.library.custom_op("bitfront::turn", mutates_args=(), schema="(Tensor rows) -> Tensor")
def turn(rows: torch.Tensor) -> torch.Tensor:
    """Rows `[..., n_columns]` turned by the `Rotation` of their length, of the same dtype."""
    return Rotation(rows.shape[-1]).turn(rows)


@torch.library.custom_op("bitfront::turn_back", mutates_args=(), schema="(Tensor rows) -> Tensor")
def turn_back(rows: torch.Tensor) -> torch.Tensor:
    """The inverse of `turn`, and its gradient."""
    return Rotation(rows.shape[-1]).undo(rows)


@torch.library.custom_op(
    "bitfront::round_inputs", mutates_args=(), schema="(Tensor inputs, str name) -> Tensor"
)
def round_inputs(inputs: torch.Tensor, name: str) -> torch.Tensor:
    """Inputs `[..., n_columns]` rounded token by token, of the same dtype; see `Activation`."""
    return ACTIVATIONS[name].rounded(inputs)


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
    """Inputs as `format.base` is multiplied by: turned, or scaled by column; then rounded."""
    if format.rotation(shape[1]) is not None:
        x = torch.ops.bitfront.turn(x)
    scale = format.input_scale(tensors)
    x = x if scale is None else x * scale.to(x.dtype)
    inputs = format.input_format
    return x if inputs is None else torch.ops.bitfront.round_inputs(x, inputs.name)


def rounded_inputs(
    x: torch.Tensor, format: Format, scale: torch.Tensor | None, together: bool = False
) -> torch.Tensor:
    """Inputs `[..., n_columns]` that give with the decoded weight what `multiply` gives.

    Those of `prepared`, scaled and turned back.

    Args:
        x: any float dtype.
        format: of the weight; inputs are left alone where it is no pair.
        scale: its `input_scale`.
        together: whether all of `x[i]` is one token.
    """
    if format.input_format is None:
        return x
    turns = format.rotation(x.shape[-1]) is not None
    x = torch.ops.bitfront.turn(x) if turns else x
    x = x if scale is None else x * scale.to(x.dtype)
    tokens = x.flatten(1) if together else x
    x = torch.ops.bitfront.round_inputs(tokens, format.input_format.name).reshape(x.shape)
    x = x if scale is None else x / scale.to(x.dtype)
    return torch.ops.bitfront.turn_back(x) if turns else x


def by_channel(format: Format) -> bool:
    """Whether channels of one position decide what inputs become: groups, a rotation, scales."""
    inputs = format.input_format
    if inputs is None:
        return False
    goes = format.rotation(2) is not None or isinstance(format.weight_format, ColumnScaled)
    return goes or inputs.grid.group_columns is not None


def rounded_images(
    x: torch.Tensor, format: Format, scale: torch.Tensor | None, n_groups: int = 1
) -> torch.Tensor:
    """Inputs of a convolution as its format says: one scale for each image, or groups of channels.

    A scale that differs between positions could not be taken out of a sum over taps: where there is
    one per token, an image is one. What goes `by_channel` looks at each position, and needs a
    kernel of one tap, whose columns are the channels.

    Args:
        x: `[n, channels, height, width]`, any float dtype.
        format: of the weight; inputs are left alone where it is no pair.
        scale: its `input_scale`.
        n_groups: of the convolution.
    """
    inputs = format.input_format
    if inputs is None:
        return x
    together = inputs.grid.group_columns is None
    rows = x.unflatten(1, (n_groups, -1)).movedim(2, -1)  # [n, groups, height, width, columns]
    made = rounded_inputs(rows, format, scale, together)
    return made.movedim(-1, 2).flatten(1, 2).contiguous()


def decoded(
    format: Format,
    tensors: Mapping[str, torch.Tensor],
    shape: tuple[int, int],
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """The weight `[n_rows, n_columns]` where its tensors are, by a kernel where there is one."""
    parts = format.parts(shape)
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
    if format.rotation(shape[1]) is not None:
        weight = torch.ops.bitfront.turn_back(weight)
    return weight


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


def _turned(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
    turned: torch.Tensor = torch.ops.bitfront.turn(gradient)
    return turned


turn_back.register_autograd(_turned)


@round_inputs.register_fake
def _(inputs: torch.Tensor, name: str) -> torch.Tensor:
    return torch.empty_like(inputs, memory_format=torch.contiguous_format)


def _straight(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
    return gradient, None


round_inputs.register_autograd(_straight)
