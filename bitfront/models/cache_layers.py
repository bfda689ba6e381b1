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
from bitfront.models.image_text import ImageText
from bitfront.models.layers import blocks
from bitfront.models.reference import is_causal
from bitfront.models.rotation import Rotation
from bitfront.models.tasks import TEXT, device_of, task_of
from bitfront.space import Layer, SearchSpace


def with_caches(space: SearchSpace, model: nn.Module, cache: KVCache) -> SearchSpace:
    """A space of weights with the keys and values of every block behind them.

    Args:
        space: layers with weights, and their menu.
        model: a causal language model, or one that sees.
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
        model: a causal language model whose blocks all cache keys and values of every token. Of
            one that sees, those of images too; its vision tower has no cache.
        cache: gives the number of tokens, and whether keys are quantized before their rotation.

    Raises:
        InvalidModel: another kind of model; says what it lacks.
    """
    _check_kinds(model)
    calls: list[Call] = []
    with intercepted(model, lambda call: calls.append(call)):
        _logits(model)
    places = {id(m): (i, block) for i, block in enumerate(blocks(model)) for m in block.modules()}
    names = {id(m): name for name, m in model.named_modules()}
    if len(calls) != len({id(c.module) for c in calls} & places.keys()) or not calls:
        raise InvalidModel(
            f"{type(model).__name__} does not attend once in a block to keys and values of that "
            "block: its KV cache cannot be searched; leave out kv_cache."
        )
    if cache.pre_rope:
        _check_rotation(model)
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
    if not task_of(model).decodes:
        raise InvalidModel(f"{type(model).__name__} has no KV cache: leave out kv_cache.")
    config = model.config.get_text_config(decoder=True)
    kinds = set(get_layer_types_and_kwargs(config)[0]) - {"full_attention"}
    if kinds:
        raise InvalidModel(
            f"{type(model).__name__} has layers of {', '.join(sorted(kinds))}: only caches of full "
            "attention can be searched; leave out kv_cache."
        )


def _tokens(model: Any) -> Tensor:
    """Eight ids of text, int64 `[1, 8]`, different where the vocabulary has as many."""
    n_rows, task = int(model.get_input_embeddings().weight.shape[0]), task_of(model)
    tokens = torch.arange(8, device=device_of(model))[None] % n_rows
    return tokens.where(tokens != task.image_token, 0) if isinstance(task, ImageText) else tokens


@torch.no_grad()
def _logits(model: nn.Module) -> Tensor:
    """Logits for `_tokens`, float32; behind an image where the model sees."""
    task, samples = task_of(model), _tokens(model)
    if isinstance(task, ImageText):
        task, samples = task.behind_noise(samples.cpu())
    return task.outputs(model, samples.to(device_of(model))).float()


def _check_rotation(model: nn.Module) -> None:
    """Keys must turn by halves, by their place among all tokens, those of an image included."""
    rotation, places, calls = Rotation.of(model), list[Tensor](), list[Call]()

    def watch(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        places.append(inputs[1] if len(inputs) > 1 else named["position_ids"])

    hook = rotation.module.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        _logits(model)
    finally:
        hook.remove()
    if any(x.ndim != 2 or (x != torch.arange(x.shape[1]).to(x)).any() for x in places):
        raise InvalidModel(
            f"{type(model).__name__} rotates keys by their place in an image (M-RoPE), not by "
            "that among all tokens: leave out pre_rope."
        )
    # Four times one token: before their rotation its keys are alike in every causal model.
    with torch.no_grad(), intercepted(model, lambda call: calls.append(call)):
        TEXT.outputs(model, torch.zeros(1, 4, dtype=torch.long, device=device_of(model)))
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

    own = _logits(model)
    with intercepted(model, attend):
        ours = _logits(model)
    tolerance = math.sqrt(torch.finfo(next(model.parameters()).dtype).eps) * own.std()
    causal = is_causal(model, _tokens(model)[0])
    if not causal or not (own - ours).abs().max() <= tolerance:
        raise InvalidModel(
            f"{type(model).__name__} attends by more than the softmax of scores of earlier tokens: "
            "its KV cache cannot be searched; leave out kv_cache."
        )
