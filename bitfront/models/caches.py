"""Keys and values of a model rounded as a quantized cache would hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from bitfront import formats as catalogue
from bitfront.formats.base import Format
from bitfront.kv_cache import KVCache
from bitfront.models.attention import Call, intercepted, mixed_attention
from bitfront.models.rotation import Rotation
from bitfront.space import SearchSpace

Watch = Callable[[str, Tensor, Tensor], None]
"""`(layer name, keys or values as they are, as queries see them outside the window)`."""


class RoundedCaches:
    """Keys and values as a model that decodes token by token finds them in a quantized cache.

    In a forward pass over whole sequences a query at position t sees those tokens rounded that have
    left the window when t + 1 tokens are in the cache, and all others at 16 bits (`KVCache`). Later
    blocks see what that makes of the hidden states. This is what decoding gives that starts at the
    first token; a prompt given at once attends to itself before it is quantized.

        with RoundedCaches(model, space) as caches:
            caches.apply({"model.layers.0.self_attn.k_cache": "int4_g32"})

    Args:
        model: causal language model, or one that sees, of whose vision tower nothing is cached; its
            own attention is back at the end of the block.
        space: says which layers are caches, and how.
    """

    def __init__(self, model: nn.Module, space: SearchSpace) -> None:
        self.model = model
        self.cache = space.kv_cache
        self.formats: dict[str, str] = {}
        self._watch: tuple[Watch, int] | None = None
        self._stack = ExitStack()
        self._names = {
            id(model.get_submodule(x.name.rpartition(".")[0])): x.name.rpartition(".")[0]
            for x in space.layers
            if x.cache
        }
        self._rotation = (
            Rotation.of(model) if self.cache is not None and self.cache.pre_rope else None
        )

    def __enter__(self) -> RoundedCaches:
        return self

    def __exit__(self, *_: object) -> None:
        self.apply({})

    def apply(self, formats: Mapping[str, str]) -> None:
        """Give caches their formats; those that are not named stay as the model makes them."""
        self.formats = dict(formats)
        self._install(bool(formats))

    def watch(self, watch: Watch | None, group: int = 1) -> None:
        """Show every cache in each forward pass; its queries see it in two versions then.

        Args:
            watch: sees the versions; `None` ends it.
            group: tokens by which keys leave the window together, whatever their format.
        """
        self._watch = None if watch is None else (watch, group)
        self._install(bool(self.formats) or watch is not None)

    def _install(self, is_needed: bool) -> None:
        self._stack.close()
        if is_needed:
            self._stack.enter_context(intercepted(self.model, self._attend))

    def _attend(self, call: Call) -> Tensor | None:
        path = self._names.get(id(call.module))
        chosen = [self.formats.get(f"{path}.{half}_cache") for half in "kv"]
        if path is None or not (any(chosen) or self._watch):
            return None
        formats = [catalogue.named(name) if name else None for name in chosen]
        # What is cached at 16 bits is bfloat16, whatever the model computes in.
        high = [
            s if format is None else _straight(s, s.detach().bfloat16())
            for s, format in zip((call.key, call.value), formats, strict=True)
        ]
        low = [
            states
            if format is None or not format.scaled
            else _straight(states, self.rounded(states.detach(), half, format))
            for half, states, format in zip("kv", high, formats, strict=True)
        ]
        groups = [self._group(half, f) for half, f in zip("kv", formats, strict=True)]
        if self._watch:
            low = [_leaf(states) for states in low]
            for half, exact, seen in zip("kv", high, low, strict=True):
                self._watch[0](f"{path}.{half}_cache", exact, seen)
        is_low = [self._is_low(call, group) for group in groups]
        seen_by = Call(call.module, call.query, high[0], high[1], call.mask, call.scaling)
        return mixed_attention(seen_by, (low[0], low[1]), (is_low[0], is_low[1]))

    def _group(self, half: str, format: Format | None) -> int:
        if self._watch:
            return self._watch[1] if half == "k" else 1
        if format is None or not format.scaled:
            return 0
        return self.kv.group(half, format)

    @property
    def kv(self) -> KVCache:
        """What the study asks of caches."""
        assert self.cache is not None, "a space without caches"
        return self.cache

    def _is_low(self, call: Call, group: int) -> Tensor:
        """Which tokens each query sees quantized, bool `[n_queries, n_tokens]`; group 0: none."""
        n_queries, n_tokens = call.query.shape[2], call.key.shape[2]
        position = torch.arange(n_tokens, device=call.key.device)
        if group == 0:
            return position.new_zeros(n_queries, n_tokens, dtype=torch.bool)
        held = position[n_tokens - n_queries :] + 1
        end = self.kv.sinks + (held - self.kv.window - self.kv.sinks).clamp(min=0) // group * group
        return (position >= self.kv.sinks) & (position < end[:, None])

    def rounded(self, states: Tensor, half: str, format: Format) -> Tensor:
        """Keys or values with every whole group between sinks and end rounded, of the same shape.

        Args:
            states: `[n, n_heads, n_tokens, head_dim]`.
            half: `"k"` or `"v"`.
            format: a grouped one.
        """
        group, first = self.kv.group(half, format), self.kv.sinks
        last = first + max(0, states.shape[2] - first) // group * group
        if last <= first:
            return states
        middle = states[:, :, first:last]
        if half == "k" and self._rotation:
            middle = self._rotation.turned(middle.float(), first, back=True)
        matrix = as_matrix(middle, half, group)
        qparams = format.qparams(matrix)
        decoded = format.decode(format.encode(matrix, qparams), qparams)
        middle = from_matrix(decoded, half, middle.shape)
        if half == "k" and self._rotation:
            middle = self._rotation.turned(middle, first)
        return torch.cat([states[:, :, :first], middle.to(states), states[:, :, last:]], dim=2)


def as_matrix(states: Tensor, half: str, group: int) -> Tensor:
    """What is quantized, rows that share nothing, float32.

    Args:
        states: `[n, n_heads, n_tokens, head_dim]`.
        half: of keys rows are channels of a group of tokens, `[n_tokens / group * n * channels,
            group]`; of values they are tokens, `[n_tokens * n, channels]`.
        group: tokens, a divisor of `n_tokens`.
    """
    n, n_heads, n_tokens, dim = states.shape
    if half == "v":
        return states.float().permute(2, 0, 1, 3).reshape(n_tokens * n, n_heads * dim)
    cut = states.float().reshape(n, n_heads, n_tokens // group, group, dim)
    return cut.permute(2, 0, 1, 4, 3).reshape(-1, group)


def from_matrix(matrix: Tensor, half: str, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Inverse of `as_matrix`: float32 of `shape`."""
    n, n_heads, n_tokens, dim = shape
    if half == "v":
        return matrix.reshape(n_tokens, n, n_heads, dim).permute(1, 2, 0, 3)
    group = matrix.shape[1]
    cut = matrix.reshape(n_tokens // group, n, n_heads, dim, group)
    return cut.permute(1, 2, 0, 4, 3).reshape(n, n_heads, n_tokens, dim)


def _straight(states: Tensor, rounded: Tensor) -> Tensor:
    """The rounded numbers, with the gradient of those they were made of."""
    rounded = rounded.to(states)
    return states + (rounded - states).detach() if states.requires_grad else rounded


def _leaf(states: Tensor) -> Tensor:
    """The same numbers with a gradient of their own."""
    if not torch.is_grad_enabled():
        return states
    copy = states.clone()
    return copy if copy.requires_grad else copy.requires_grad_()
