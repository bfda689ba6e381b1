"""Inputs of layers rounded as the layers' formats say, while a model runs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bitfront.formats import named
from bitfront.formats.base import Format
from bitfront.formats.column_scaled import ColumnScaled
from bitfront.kernels.weights import rounded_images, rounded_inputs
from bitfront.models.bank import WeightBank
from bitfront.space import SearchSpace


class RoundedInputs:
    """Rounds the inputs of the layers whose format is a pair; others are not touched.

        inputs = RoundedInputs(model, bank)
        inputs.apply({"model.layers.0.mlp.down_proj": "int4_g64_aint8"})

    Layers that read one tensor in the same way (q, k and v; gate and up) have it rounded once.
    Gradients flow as if nothing was rounded.

    Args:
        model: its layers get hooks; `apply({})` takes them away.
        bank: knows the column scales of weights that have some.
    """

    def __init__(self, model: nn.Module, bank: WeightBank) -> None:
        self.model = model
        self.bank = bank
        self._hooks: dict[str, tuple[str, RemovableHandle]] = {}
        self._shared = _Shared()

    def apply(self, formats: Mapping[str, str]) -> None:
        """Give layers the formats of their inputs.

        Args:
            formats: names by layer; those that are no pairs leave inputs alone.
        """
        self._shared = _Shared()
        for layer in [x for x, (held, _) in self._hooks.items() if formats.get(x) != held]:
            self._hooks.pop(layer)[1].remove()
        for layer, name in formats.items():
            format = named(name)
            if layer not in self._hooks and format.input_format is not None:
                module = self.model.get_submodule(layer)
                scale = column_scale(self.bank, layer, format)
                hook = module.register_forward_pre_hook(
                    self._rounding(format, scale, _n_groups(module))
                )
                self._hooks[layer] = name, hook

    def _rounding(
        self, format: Format, scale: Tensor | None, n_groups: int
    ) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        key = rounding_of(format, n_groups) if scale is None else None

        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            inputs: Tensor = args[0]
            made = self._shared.of(inputs, key)
            if made is None:
                made = self._shared.keep(inputs, key, rounded(module, inputs, format, scale))
            return (made, *args[1:])

        return hook


def has_pairs(space: SearchSpace) -> bool:
    """Whether formats of the menu round inputs."""
    return any(f.input_format is not None for f in space.formats)


Rounding = tuple[str, bool, int]
"""Name of the format of inputs, whether they are turned before, and groups of a convolution."""


def rounding_of(format: Format, n_groups: int = 0) -> Rounding | None:
    """What a format without column scales does to inputs; `None` where it does nothing.

    Args:
        format: of a layer.
        n_groups: of a convolution; 0 for others.
    """
    inputs = format.input_format
    turns = format.rotation(2) is not None
    return None if inputs is None else (inputs.name, turns, n_groups)


def _n_groups(module: nn.Module) -> int:
    return module.groups if isinstance(module, nn.Conv2d) else 0


def rounded(module: nn.Module, inputs: Tensor, format: Format, scale: Tensor | None) -> Tensor:
    """What a layer in a format multiplies, shaped as its inputs.

    Args:
        module: the layer.
        inputs: as it is called with.
        format: of its weight; inputs are left alone where it is no pair.
        scale: its `column_scale`.
    """
    scale = None if scale is None else scale.to(inputs.device)
    if isinstance(module, nn.Conv2d):
        return rounded_images(inputs, format, scale, module.groups)
    return rounded_inputs(inputs, format, scale)


def column_scale(bank: WeightBank, layer: str, format: Format) -> Tensor | None:
    """Powers of two that a layer's inputs meet before they are rounded; `None` for most formats."""
    if format.input_format is None or not isinstance(format.weight_format, ColumnScaled):
        return None  # without reading the weight
    return format.input_scale(bank.tensors(layer, format.name))


def roundings(
    module: nn.Module, space: SearchSpace, row: int, bank: WeightBank, inputs: Tensor
) -> Iterator[tuple[list[int], Tensor]]:
    """Each way in which pairs of a layer round its inputs.

    Args:
        module: the layer.
        space: a menu with pairs.
        row: the layer's.
        bank: knows column scales.
        inputs: float32, as the layer is called with.

    Yields:
        the columns of the pairs that do, and what they make of the inputs.
    """
    columns: dict[object, list[int]] = {}
    scales: dict[object, Tensor | None] = {}
    for column in np.flatnonzero(space.allowed[row]):
        format = space.formats[column]
        if format.input_format is not None:
            scale = column_scale(bank, space.layers[row].name, format)
            key = rounding_of(format) if scale is None else format.name
            columns.setdefault(key, []).append(int(column))
            scales[key] = scale
    for way, alike in columns.items():
        yield alike, rounded(module, inputs, space.formats[alike[0]], scales[way])


@contextmanager
def exact_inputs(model: nn.Module, names: Mapping[int, str]) -> Iterator[dict[int, Tensor]]:
    """Inputs that layers were last called with, before they are rounded.

    Args:
        model: holds the layers.
        names: of layers, by the number that their inputs go by.
    """
    exact: dict[int, Tensor] = {}

    def keep(row: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
            exact[row] = args[0].detach()

        return hook

    with ExitStack() as stack:
        for row, name in names.items():
            module = model.get_submodule(name)
            stack.callback(module.register_forward_pre_hook(keep(row), prepend=True).remove)
        yield exact


class _Shared:
    """Roundings of the tensor that layers were last called with."""

    def __init__(self) -> None:
        self._inputs: Callable[[], Tensor | None] = lambda: None
        self._made: dict[Rounding, Tensor] = {}

    def of(self, inputs: Tensor, key: Rounding | None) -> Tensor | None:
        # A weak reference: a dead tensor's address may be taken by another one.
        if self._inputs() is not inputs:
            self._inputs, self._made = weakref.ref(inputs), {}
        return None if key is None else self._made.get(key)

    def keep(self, inputs: Tensor, key: Rounding | None, made: Tensor) -> Tensor:
        if key is not None:
            self._made[key] = made
        return made
