"""An allocation in the words of another tool."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument, InvalidModel
from bitfront.experts import place
from bitfront.export.base import writing
from bitfront.formats import named
from bitfront.formats.base import Format
from bitfront.models.experts import expert_modules
from bitfront.models.layers import find_pinned
from bitfront.models.load import LoadedModel

T = TypeVar("T")


def searched(
    model: LoadedModel, allocation: Allocation, with_experts: bool = False
) -> dict[str, str]:
    """Format name of each layer but embedding and head, which other tools leave alone.

    Args:
        model: what is exported.
        allocation: of the whole model.
        with_experts: whether experts that transformers stacks can be among them.

    Raises:
        InvalidModel: such experts, where they cannot; a convolution.
    """
    experts = {} if with_experts else expert_modules(model.module)
    for name in allocation.formats:
        at = place(name)
        if at is not None and at[0] in experts:
            raise InvalidModel(
                f"Layer {name!r} is of an expert that transformers stacks with others, and this "
                "exporter cannot name one alone: search with --experts none, or export with packed "
                "or fake_quant."
            )
        if isinstance(model.module.get_submodule(name), nn.Conv2d):
            raise InvalidModel(
                f"Layer {name!r} is a convolution, and recipes are for linear layers: export with "
                "packed or fake_quant."
            )
    pinned = {layer.name for layer in find_pinned(model.module)}
    return {name: f for name, f in allocation.formats.items() if name not in pinned}


def translated(
    formats: Mapping[str, str], tool: str, word: Callable[[Format], T | None], allowed: str
) -> dict[str, T]:
    """What a tool calls the format of each layer, bf16 left out.

    Args:
        formats: format name of each layer.
        tool: for messages.
        word: the tool's word for a format, `None` where it has none.
        allowed: formats that have one, for messages.

    Raises:
        InvalidArgument: a format without one; names the first layer that has it.
    """
    words: dict[str, T] = {}
    for layer, name in formats.items():
        found = word(named(name))
        if found is not None:
            words[layer] = found
        elif name != "bf16":
            raise InvalidArgument(
                f"Layer {layer!r} has {name}, which {tool} does not know: search with {allowed} "
                "and bf16, or export with packed."
            )
    return words


def write_recipe(
    directory: Path, model: LoadedModel, allocation: Allocation, name: str, recipe: str | Any
) -> None:
    """Write a folder with one file for another tool.

    Args:
        directory: see `Exporter.write`.
        model: what is exported.
        allocation: kept in `bitfront.json`.
        name: of the file.
        recipe: its text, or what becomes its JSON.

    Raises:
        StorageError: as `writing`.
    """
    text = recipe if isinstance(recipe, str) else json.dumps(recipe, indent=2)
    with writing(directory, model, allocation) as folder:
        (folder / name).write_text(text)
