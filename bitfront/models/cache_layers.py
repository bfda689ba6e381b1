"""Which keys and values a model caches: layers of the search space beside its weights."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import get_layer_types_and_kwargs

from bitfront import formats as catalogue
from bitfront.errors import InvalidModel
from bitfront.kv_cache import KVCache
from bitfront.models.attention import Call, intercepted, mixed_attention
from bitfront.models.layers import blocks
from bitfront.models.reference import is_causal
from bitfront.models.rotation import Rotation
from bitfront.models.tasks import CausalText, device_of, run, task_of
from bitfront.space import Layer, SearchSpace


def with_caches(space: SearchSpace, model: nn.Module, cache: KVCache) -> SearchSpace:
    """A space of weights with the keys and values of every block behind them.

    Args:
        space: layers with weights, and their menu.
        model: a causal language model.
        cache: menu and shape of its cache.

    Raises:
        InvalidModel: it has no such cache; says what it lacks.
        InvalidArgument: no format of the menu fits the values.
    """
    of_weights = {f.name for f in space.formats}
    added = tuple(catalogue.named(x) for x in cache.formats if x not in of_weights)
    return replace(
        space,
        layers=(*space.layers, *find_caches(model, cache)),
        formats=(*space.formats, *added),
        kv_cache=cache,
        cache_only=tuple(f.name for f in added),
    )


def find_caches(model: nn.Module, cache: KVCache) -> tuple[Layer, ...]:
    """The keys and the values of every block, each a layer and a group of its own.

    Args:
        model: a causal language model whose blocks all cache keys and values of every token.
        cache: gives the number of tokens, and whether keys are quantized before their rotation.

    Raises:
        InvalidModel: another kind of model; says what it lacks.
    """
    _check_kinds(model)
    calls: list[Call] = []
    with torch.no_grad(), intercepted(model, lambda call: calls.append(call)):
        run(model, torch.zeros(1, 4, dtype=torch.long))
    places = {id(m): (i, block) for i, block in enumerate(blocks(model)) for m in block.modules()}
    names = {id(m): name for name, m in model.named_modules()}
    if len(calls) != len({id(c.module) for c in calls} & places.keys()) or not calls:
        raise InvalidModel(
            f"{type(model).__name__} does not attend once in a block to keys and values of that "
            "block: its KV cache cannot be searched; leave out kv_cache."
        )
    if cache.pre_rope:
        _check_rotation(model, calls)
    _check_attention(model)
    found = []
    for call in calls:
        index, block = places[id(call.module)]
        path = names[id(call.module)]
        kind = path.removeprefix(f"{names[id(block)]}.")
        for half, states in (("k", call.key), ("v", call.value)):
            name, n_channels = f"{path}.{half}_cache", states.shape[1] * states.shape[3]
            shape = (n_channels, cache.context)
            found.append(Layer(name, shape, name, index, f"{kind}.{half}_cache"))
    return tuple(found)


def _check_kinds(model: Any) -> None:
    if not isinstance(task_of(model), CausalText):
        raise InvalidModel(f"{type(model).__name__} has no KV cache: leave out kv_cache.")
    config = model.config.get_text_config(decoder=True)
    kinds = set(get_layer_types_and_kwargs(config)[0]) - {"full_attention"}
    if kinds:
        raise InvalidModel(
            f"{type(model).__name__} has layers of {', '.join(sorted(kinds))}: only caches of full "
            "attention can be searched; leave out kv_cache."
        )


def _check_rotation(model: nn.Module, calls: list[Call]) -> None:
    """Four times one token: before their rotation its keys are alike in every causal model."""
    rotation = Rotation.of(model)
    for call in calls:
        keys = rotation.turned(call.key.float(), back=True)
        if not torch.allclose(keys, keys[:, :, :1].expand_as(keys), atol=0.02 * float(keys.std())):
            raise InvalidModel(
                f"{type(model).__name__} does not rotate its keys by halves: leave out pre_rope."
            )


def _check_attention(model: nn.Module) -> None:
    """Attention by our own arithmetic must be the model's, and see no later token."""

    def attend(call: Call) -> Tensor:
        none = torch.zeros(call.query.shape[2], call.key.shape[2], dtype=torch.bool)
        none = none.to(call.key.device)
        return mixed_attention(
            Call(call.module, call.query, call.key, call.value, None, call.scaling),
            (call.key, call.value),
            (none, none),
        )

    language_model: Any = model
    n_rows = language_model.get_input_embeddings().weight.shape[0]
    tokens = torch.arange(8, device=device_of(model))[None] % n_rows
    causal = is_causal(model, tokens[0])
    with torch.no_grad():
        own = run(model, tokens).float()
        with intercepted(model, attend):
            ours = run(model, tokens).float()
    tolerance = math.sqrt(torch.finfo(next(model.parameters()).dtype).eps) * own.std()
    if not causal or not (own - ours).abs().max() <= tolerance:
        raise InvalidModel(
            f"{type(model).__name__} attends by more than the softmax of scores of earlier tokens: "
            "its KV cache cannot be searched; leave out kv_cache."
        )
