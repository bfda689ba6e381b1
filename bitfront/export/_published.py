"""Names of layers in a published checkpoint, where experts are apart that transformers stacks."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers.core_model_loading import revert_weight_conversion

from bitfront.errors import InvalidArgument, InvalidModel
from bitfront.experts import place
from bitfront.models.experts import expert_modules, restacked


@dataclass(frozen=True)
class Part:
    """A module of a published checkpoint, with some of the rows of a layer.

    Args:
        name: of the module.
        index: which part of the layer it holds.
        n_parts: how many equal ones there are.
        target: what a scheme names it by: a pattern for all experts of a block, as engines that
            fuse them ask for one name of their own.
    """

    name: str
    index: int = 0
    n_parts: int = 1
    target: str = ""

    def __post_init__(self) -> None:
        if not self.target:
            object.__setattr__(self, "target", self.name)

    def of(self, tensors: Mapping[str, torch.Tensor], n_rows: int) -> dict[str, torch.Tensor]:
        """Its tensors by whole name, from those of the layer.

        Args:
            tensors: of the layer in the words of compressed-tensors, row by row but for
                `weight_shape` and what all rows share.
            n_rows: of the layer.
        """
        size = n_rows // self.n_parts
        made = {}
        for key, tensor in tensors.items():
            if key == "weight_shape":
                made[key] = torch.tensor([size, int(tensor[1])])
            elif tensor.dim() and len(tensor) == n_rows:
                made[key] = tensor[self.index * size : (self.index + 1) * size]
            else:
                made[key] = tensor.clone()  # files have no room for one tensor under two names
        return {f"{self.name}.{key}": tensor for key, tensor in made.items()}


def published(model: nn.Module, layers: Iterable[str]) -> dict[str, tuple[Part, ...]]:
    """By layer, the modules that hold its rows: itself, but for separate experts.

    Transformers knows how it stacks what is published and undoes it on saving. It is asked to undo
    that with small stacks of numbers, which tell what becomes of each part.

    Args:
        model: holds the layers.
        layers: names.

    Raises:
        InvalidModel: a family whose experts are published in a stack, or with rows interleaved.
    """
    modules = expert_modules(model)
    if not modules:
        return {name: (Part(name),) for name in layers}
    # Gate and up of an expert are one layer and two published modules.
    whole = {
        name: 2 if _is_of(name, modules) and name.endswith(".gate_up_proj") else 1
        for name in layers
    }
    ids = [(name, index) for name, n_parts in whole.items() for index in range(n_parts)]
    rows: dict[str, list[list[int]]] = {}
    for number, (name, _) in enumerate(ids):
        rows.setdefault(name, []).append([number])
    stacks = restacked(model, {f"{name}.weight": torch.tensor(x) for name, x in rows.items()})
    parts: dict[str, list[Part]] = {name: [] for name in layers}
    for name, numbers in revert_weight_conversion(model, stacks).items():
        if numbers.numel() != 1 or not name.endswith(".weight"):
            raise InvalidModel(
                f"{type(model).__name__} is published with its experts in one tensor "
                f"({name!r}): export with packed or fake_quant."
            )
        layer, index = ids[int(numbers)]
        module = name.removesuffix(".weight")
        at, is_expert = place(module), _is_of(layer, modules)
        target = f"re:{re.escape(at[0])}\\.\\d+\\..*" if at and is_expert else ""
        parts[layer].append(Part(module, index, whole[layer], target))
    return {name: tuple(sorted(x, key=lambda part: part.index)) for name, x in parts.items()}


def check_blocks(model: nn.Module, formats: Mapping[str, str]) -> None:
    """Refuse experts of a block that differ: engines make one kernel of them.

    Args:
        model: holds the layers.
        formats: format name of each layer.

    Raises:
        InvalidArgument: names the block.
    """
    held: dict[str, set[str]] = {name: set() for name in expert_modules(model)}
    for layer, format in formats.items():
        at = place(layer)
        if at is not None and _is_of(layer, held):
            held[at[0]].add(format)
    for module, names in held.items():
        if len(names) > 1:
            raise InvalidArgument(
                f"Experts of {module!r} have {', '.join(sorted(names))}, and engines make one "
                "kernel of all experts of a block: search with --experts block, or export with "
                "packed or fake_quant."
            )


def _is_of(layer: str, modules: Container[str]) -> bool:
    """Whether a layer is of an expert of one of these modules."""
    at = place(layer)
    return at is not None and at[0] in modules
