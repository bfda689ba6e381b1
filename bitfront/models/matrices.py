"""The matrix in every kind of module that can be a layer: linear, GPT-2's `Conv1D`, convolution.

A convolution multiplies the patches of its input, so its weight `[out, in / groups, height, width]`
is a matrix `[out, in / groups * height * width]` whose rows read one patch at each position of the
output. In a grouped one (depthwise: as many groups as channels) the rows of a group read a patch of
their own, of the same columns. What is called rows of an input here is `[..., in_features]`, with a
dimension of groups before the last where there are several.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

MODULES = (nn.Linear, Conv1D, nn.Conv2d)
"""Kinds of module whose weight can be a layer."""


def can_be_layer(module: nn.Module) -> bool:
    """Whether a module multiplies by its weight as it is.

    A convolution with a forward of its own may not: BiT standardizes the weight, others pad the
    input, and a packed kernel would do neither. Of these only `pads_by_size` is known.
    """
    plain = nn.Conv2d
    if isinstance(module, plain):
        kind = type(module)
        known = kind.forward is plain.forward or pads_by_size(module)
        return known and kind._conv_forward is plain._conv_forward
    return isinstance(module, MODULES)


def pads_by_size(module: nn.Module) -> bool:
    """Whether a convolution is timm's `Conv2dSame`, which pads as TensorFlow's `SAME` does."""
    kind = type(module)
    return kind.__name__ == "Conv2dSame" and kind.__module__.startswith("timm.")


def padded_by_size(module: nn.Conv2d, images: Tensor) -> Tensor:
    """Images with zeros around them, so that a convolution has size / stride outputs, rounded up.

    What is odd of the zeros goes below and to the right (TensorFlow's `SAME`).

    Args:
        module: gives kernel size, stride and dilation.
        images: `[..., height, width]`.
    """
    around: list[int] = []
    for axis in (1, 0):  # `pad` begins with the last dimension
        size, stride = images.shape[axis - 2], module.stride[axis]
        reach = module.dilation[axis] * (module.kernel_size[axis] - 1) + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        around += [total // 2, total - total // 2]
    return functional.pad(images, around)


def as_matrix(module: nn.Module, weight: Tensor) -> Tensor:
    """A weight, or what is laid out as it, as `[out_features, in_features]`; a view where it can.

    Args:
        module: the layer.
        weight: laid out as the module's own.
    """
    if isinstance(module, Conv1D):
        return weight.T
    return weight.flatten(1) if isinstance(module, nn.Conv2d) else weight


def as_stored(module: nn.Module, matrix: Tensor) -> Tensor:
    """Inverse of `as_matrix`: `[out_features, in_features]` as the module lays its weight out."""
    if isinstance(module, Conv1D):
        return matrix.T
    if isinstance(module, nn.Conv2d):
        return matrix.reshape(len(matrix), module.in_channels // module.groups, *module.kernel_size)
    return matrix


def n_groups(module: nn.Module) -> int:
    """In how many groups the rows of the matrix are that read patches of their own; 1 for most."""
    return module.groups if isinstance(module, nn.Conv2d) else 1


def reading(module: nn.Module) -> Hashable:
    """How a layer reads its input: layers that read one tensor alike have the same rows."""
    if not isinstance(module, nn.Conv2d):
        return None
    return (
        *(module.kernel_size, module.stride, module.padding, module.dilation),
        *(module.padding_mode, module.groups, pads_by_size(module)),
    )


def input_rows(module: nn.Module, inputs: Tensor) -> Tensor:
    """What the rows of the matrix are multiplied with.

    Args:
        module: the layer.
        inputs: as it is called with; of a convolution `[n, channels, height, width]`.

    Returns:
        The inputs themselves, `[..., in_features]` in at most three dimensions; or the patches of a
        convolution, `[n, n_positions, in_features]`, in groups `[n, n_positions, n_groups,
        in_features]`.
    """
    if not isinstance(module, nn.Conv2d):
        return inputs.flatten(1, -2) if inputs.ndim > 3 else inputs
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    # Also for padding by name, and with another row of zeros at the end (kernels of even size).
    padded = (
        padded_by_size(module, inputs)
        if pads_by_size(module)
        else functional.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
    )
    patches = functional.unfold(
        padded, module.kernel_size, dilation=module.dilation, stride=module.stride
    ).mT
    if module.groups == 1:
        return patches
    return patches.reshape(*patches.shape[:2], module.groups, -1)


def output_rows(module: nn.Module, outputs: Tensor) -> Tensor:
    """Outputs, or gradients shaped as them, one row of `out_features` for each row of the inputs.

    Args:
        module: the layer.
        outputs: of a convolution `[n, out_features, height, width]`, else `[..., out_features]`.
    """
    if isinstance(module, nn.Conv2d):
        return outputs.flatten(2).mT
    return outputs.flatten(1, -2) if outputs.ndim > 3 else outputs


def outputs_with(module: nn.Module, inputs: Tensor, matrix: Tensor) -> Tensor:
    """What a layer would put out with another matrix and no bias, shaped as its output.

    Args:
        module: the layer.
        inputs: as it is called with.
        matrix: `[out_features, in_features]`.
    """
    if isinstance(module, nn.Conv2d):
        inputs = padded_by_size(module, inputs) if pads_by_size(module) else inputs
        convolved: Tensor = module._conv_forward(inputs, as_stored(module, matrix), None)
        return convolved
    return functional.linear(inputs, matrix)


def along(module: nn.Module, matrix: Tensor, gradients: Tensor) -> Callable[[Tensor], Tensor]:
    """How far a change of a layer's inputs moves its outputs along gradients.

    Args:
        module: the layer.
        matrix: `[out_features, in_features]`.
        gradients: at the outputs, as `output_rows` gives them.

    Returns:
        A function from a change, shaped as what the layer is called with, to one number for each
        position of the output, `[n, n_positions]`.
    """
    if isinstance(module, nn.Conv2d):
        return lambda change: (
            output_rows(module, outputs_with(module, change, matrix)) * gradients
        ).sum(dim=-1)
    slopes = gradients @ matrix
    return lambda change: (slopes * change.reshape(slopes.shape)).sum(dim=-1)


def products(rows: Tensor, matrix: Tensor) -> Tensor:
    """`rows @ matrix.T`, one number for each row and output, `[n, n_positions, out_features]`.

    Args:
        rows: `[n, n_positions, in_features]`, or in groups as `input_rows` gives them.
        matrix: `[out_features, in_features]`.
    """
    if rows.ndim < 4:
        return functional.linear(rows, matrix)
    by_group = matrix.reshape(rows.shape[2], -1, matrix.shape[1])  # [n_groups, rows of each, .]
    return torch.einsum("npgc,grc->npgr", rows, by_group).flatten(2)


def gram(rows: Tensor, others: Tensor | None = None) -> Tensor:
    """Sum of x y^T, float32 `[in_features, in_features]`; in groups one each, `[n_groups, ., .]`.

    Args:
        rows: x, as `input_rows` gives them.
        others: y, as many; x by default.
    """
    if rows.ndim < 4:
        x = rows.reshape(-1, rows.shape[-1]).float()
        return x.T @ (x if others is None else others.reshape(x.shape).float())
    x = rows.flatten(0, 1).transpose(0, 1).float()  # [n_groups, n_rows, in_features]
    y = x if others is None else others.flatten(0, 1).transpose(0, 1).float()
    return x.mT @ y


def n_rows(rows: Tensor) -> int:
    """How many rows each group has."""
    return rows.shape[0] * rows.shape[1] if rows.ndim == 4 else rows.numel() // rows.shape[-1]
