"""Attention of a model, seen or replaced from outside, over two versions of keys and values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from bitfront.errors import InvalidModel
from bitfront.models.image_text import language_modules

_NAME = "bitfront"
_OWN = "sdpa"


@dataclass(frozen=True, eq=False)
class Call:
    """One call of the attention of a module, after the rotary embedding.

    Args:
        module: that calls.
        query: `[n, n_heads, n_queries, head_dim]`.
        key: `[n, n_kv_heads, n_tokens, head_dim]`; the queries are of the last tokens.
        value: of the same shape, but for its last dimension.
        mask: where a query may look, bool `[n, 1, n_queries, n_tokens]`; `None` for all up to it.
        scaling: of the scores.
    """

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float


Attend = Callable[[Call], Tensor | None]
"""Result `[n, n_heads, n_queries, head_dim]`, or `None` for the model's own attention."""

_ATTENDING: WeakKeyDictionary[nn.Module, Attend] = WeakKeyDictionary()


@contextmanager
def intercepted(model: nn.Module, attend: Attend) -> Iterator[None]:
    """Ask `attend` whenever a module of the language model attends, within the block.

    A vision tower, and what lies between it and the language model, attend by themselves.

    Raises:
        InvalidModel: the model has an attention of its own, not that of torch.
    """
    modules = language_modules(model)
    configs = {id(c): c for m in modules if (c := getattr(m, "config", None)) is not None}
    before = {key: c._attn_implementation for key, c in configs.items()}
    if not {_OWN, _NAME} & set(before.values()):
        kinds = ", ".join(sorted({str(x) for x in before.values()}))
        raise InvalidModel(
            f"{type(model).__name__} attends by {kinds}, not by {_OWN}: its KV cache cannot be "
            "quantized here; leave out kv_cache."
        )
    others = {module: _ATTENDING.get(module) for module in modules}
    try:
        _ATTENDING.update(dict.fromkeys(modules, attend))
        for key, config in configs.items():
            if before[key] == _OWN:
                config._attn_implementation = _NAME
        yield
    finally:
        for module, other in others.items():
            if other is None:
                del _ATTENDING[module]
            else:
                _ATTENDING[module] = other
        for key, config in configs.items():
            config._attn_implementation = before[key]


def mixed_attention(
    call: Call, low: tuple[Tensor, Tensor], is_low: tuple[Tensor, Tensor]
) -> Tensor:
    """Attention where each query sees some keys and values in another version.

    Args:
        call: queries, and keys and values as they are.
        low: other versions of keys and values.
        is_low: which keys, and which values, a query sees so, bool `[n_queries, n_tokens]` each.

    Returns:
        `[n, n_heads, n_queries, head_dim]`.
    """
    n, n_kv_heads, n_tokens, _ = call.key.shape
    n_queries = call.query.shape[2]
    # Heads that share keys stand beside the queries: `[n, n_kv_heads, n_shared * n_queries, dim]`.
    query = call.query.reshape(n, n_kv_heads, -1, call.query.shape[3])
    shape = (n, n_kv_heads, -1, n_queries, n_tokens)
    high_scores, low_scores = ((query @ keys.mT).view(shape) for keys in (call.key, low[0]))
    scores = torch.where(is_low[0], low_scores, high_scores) * call.scaling
    scores = scores.masked_fill(~_visible(call), -torch.inf)
    weights = scores.float().softmax(dim=-1).to(query.dtype)
    of_low = (weights * is_low[1]).view(n, n_kv_heads, -1, n_tokens)
    of_high = (weights * ~is_low[1]).view(n, n_kv_heads, -1, n_tokens)
    result: Tensor = of_high @ call.value + of_low @ low[1]
    return result.reshape(n, -1, n_queries, call.value.shape[3])


def _visible(call: Call) -> Tensor:
    """Where queries may look, broadcast to `[n, n_kv_heads, n_shared, n_queries, n_tokens]`."""
    if call.mask is not None:
        return call.mask[:, :, None]
    n_queries, n_tokens = call.query.shape[2], call.key.shape[2]
    every = torch.ones(n_queries, n_tokens, dtype=torch.bool, device=call.query.device)
    return every.tril(n_tokens - n_queries)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    attend = _ATTENDING.get(module)
    if attend is not None:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        made = attend(Call(module, query, key, value, attention_mask, scale))
        if made is not None:
            return made.transpose(1, 2).contiguous(), None
    own: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **options
    )
    return own


ALL_ATTENTION_FUNCTIONS.register(_NAME, _attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, sdpa_mask)
