"""What a runtime makes of the layers of a model: kernels, ranks, formats that it cannot load."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from bitfront.errors import InvalidArgument, InvalidModel
from bitfront.formats.base import Format
from bitfront.runtimes.base import Runtime
from bitfront.space import Layer


def check_model(model: nn.Module, layers: tuple[Layer, ...], runtime: Runtime) -> None:
    """Refuse a model that the runtime cannot load in any format.

    Args:
        model: a causal language model.
        layers: its searched layers.
        runtime: what is to load it.

    Raises:
        InvalidModel: an architecture or a kind of layer that it does not know.
        InvalidArgument: heads, or a layer, that its ranks do not divide.
    """
    config: Any = model.config
    if runtime.architectures and config.model_type not in runtime.architectures:
        raise InvalidModel(
            f"Runtime {runtime.name!r} takes models of type {', '.join(runtime.architectures)}, "
            f"not {config.model_type!r}: name another runtime, or none."
        )
    n_ranks = runtime.tensor_parallel
    n_heads = getattr(config, "num_attention_heads", None) or n_ranks
    n_kv_heads = getattr(config, "num_key_value_heads", None) or n_heads
    if n_heads % n_ranks or (n_kv_heads % n_ranks and n_ranks % n_kv_heads):
        raise InvalidArgument(
            f"{n_ranks} ranks do not divide {n_heads} attention heads, {n_kv_heads} of them of "
            "keys and values: give another tensor_parallel."
        )
    for layer in layers:
        module = model.get_submodule(layer.name)
        if runtime.only_linear and not isinstance(module, nn.Linear):
            raise InvalidModel(
                f"Runtime {runtime.name!r} loads linear layers only, and {layer.name!r} is a "
                f"{type(module).__name__}: name another runtime, or none."
            )
        if not runtime.divides(layer.name, layer.shape):
            raise InvalidArgument(
                f"{n_ranks} ranks do not divide layer {layer.name!r} of shape {layer.shape}: "
                "give another tensor_parallel."
            )


def with_kernels(layers: tuple[Layer, ...], runtime: Runtime) -> tuple[Layer, ...]:
    """The layers, where those of one kernel are of one group; groups they had are merged, not cut.

    Args:
        layers: of a model, each in its group.
        runtime: what fuses them.
    """
    root: dict[str, str] = {}

    def find(name: str) -> str:
        while root.get(name, name) != name:
            name = root[name]
        return name

    kernels: dict[str, str] = {}
    for layer in layers:
        first = kernels.setdefault(runtime.kernel(layer.name), layer.group)
        root[find(layer.group)] = find(first)
    return tuple(replace(layer, group=find(layer.group)) for layer in layers)


def barred(
    layers: tuple[Layer, ...], formats: tuple[Format, ...], runtime: Runtime
) -> tuple[tuple[str, tuple[int, int], str], ...]:
    """Kind and shape of layers with a format that fits their shape but not the runtime.

    Args:
        layers: of a model.
        formats: the menu.
        runtime: what is to load them.
    """
    refused = runtime.refused({layer.name: layer.shape for layer in layers}, formats)
    return tuple(
        dict.fromkeys(
            (layer.kind, layer.shape, format.name)
            for layer in layers
            for format in formats
            if (layer.name, format.name) in refused
        )
    )
