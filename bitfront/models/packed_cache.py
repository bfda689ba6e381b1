"""PackedCache: the KV cache of a packed checkpoint in transformers, codes and scales packed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin

from bitfront import formats as catalogue
from bitfront.errors import InvalidArgument
from bitfront.formats.base import Format
from bitfront.kv_cache import KVCache
from bitfront.models.caches import as_matrix, from_matrix
from bitfront.models.rotation import Rotation


class PackedHalf:
    """The keys, or the values, of one block: packed between sinks and window, else bfloat16.

    Args:
        half: `"k"` or `"v"`.
        format: of the packed part; bf16 packs nothing.
        cache: sinks and window.
        rotation: turns keys that are packed as they were before it; `None` for as they come.
    """

    def __init__(
        self, half: str, format: Format, cache: KVCache, rotation: Rotation | None
    ) -> None:
        self.half, self.format, self.cache = half, format, cache
        self.rotation = rotation if half == "k" else None
        self.n_tokens = self.n_low = 0
        self.sinks: Tensor | None = None
        self.recent: Tensor | None = None
        self.packed: dict[str, Tensor] = {}

    def add(self, states: Tensor) -> None:
        """Append tokens, `[n, n_heads, n_tokens, head_dim]`, and pack what leaves the window."""
        stored = states.bfloat16()
        if self.recent is None or self.sinks is None:
            self.sinks = self.recent = stored[:, :, :0]
        n_sinks = max(0, self.cache.sinks - self.n_tokens)
        self.sinks = torch.cat([self.sinks, stored[:, :, :n_sinks]], dim=2)
        self.recent = torch.cat([self.recent, stored[:, :, n_sinks:]], dim=2)
        self.n_tokens += states.shape[2]
        if not self.format.scaled:
            return
        group = self.cache.group(self.half, self.format)
        n_leaving = self.cache.n_low(self.n_tokens, group) - self.n_low
        if n_leaving > 0:
            self._pack(self.recent[:, :, :n_leaving], group)
            self.recent = self.recent[:, :, n_leaving:].contiguous()
            self.n_low += n_leaving

    def _pack(self, states: Tensor, group: int) -> None:
        leaving = states.float()
        if self.rotation:
            leaving = self.rotation.turned(leaving, self.cache.sinks + self.n_low, back=True)
        matrix = as_matrix(leaving, self.half, group)
        qparams = self.format.qparams(matrix)
        new = self.format.pack(self.format.encode(matrix, qparams), qparams)
        held = self.packed
        self.packed = {k: torch.cat([held[k], t]) if held else t for k, t in new.items()}

    def states(self, like: Tensor) -> Tensor:
        """All tokens, `[n, n_heads, n_tokens, head_dim]`, in the dtype of `like`."""
        assert self.sinks is not None
        assert self.recent is not None
        parts = [self.sinks.to(like), self.recent.to(like)]
        if self.n_low:
            n, n_heads, _, dim = self.recent.shape
            group = self.cache.group(self.half, self.format)
            wide = (self.n_low * n, n_heads * dim)
            long = (self.n_low // group * n * n_heads * dim, group)
            matrix = self.format.decode_stored(self.packed, long if self.half == "k" else wide)
            low = from_matrix(matrix, self.half, (n, n_heads, self.n_low, dim))
            if self.rotation:
                low = self.rotation.turned(low, self.cache.sinks)
            parts.insert(1, low.to(like))
        return torch.cat(parts, dim=2)

    def select(self, sequences: Tensor) -> None:
        """Keep these sequences, by index, in this order; one may come again."""
        if self.recent is None or self.sinks is None:
            return
        n = len(self.recent)
        self.sinks, self.recent = self.sinks[sequences], self.recent[sequences]
        for name, tensor in self.packed.items():
            n_rows = self.recent.shape[1] * self.recent.shape[3] if self.half == "k" else 1
            by_sequence = tensor.view(-1, n, n_rows, tensor.shape[1])[:, sequences]
            self.packed[name] = by_sequence.reshape(-1, tensor.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of all that is held."""
        held = [t for t in (self.sinks, self.recent, *self.packed.values()) if t is not None]
        return sum(t.numel() * t.itemsize for t in held)


class PackedCacheLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped
    """Keys and values of one block.

    One token at a time attends to what the cache holds after it was added, as the search measured
    it. Several at once, a prompt, attend to each other as they are and are packed afterwards.

    Args:
        keys, values: their packed halves, empty.
    """

    is_sliding = False

    def __init__(self, keys: PackedHalf, values: PackedHalf) -> None:
        super().__init__()
        self.halves = (keys, values)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: tensors are made as tokens come."""
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Add tokens; returns the keys and values that their queries attend to."""
        new = (key_states, value_states)
        is_prompt = key_states.shape[2] > 1
        seen = [
            torch.cat([half.states(states), states], dim=2) if half.n_tokens else states
            for half, states in zip(self.halves, new, strict=True)
            if is_prompt
        ]
        for half, states in zip(self.halves, new, strict=True):
            half.add(states)
        self.is_initialized = True
        if not is_prompt:
            seen = [half.states(states) for half, states in zip(self.halves, new, strict=True)]
        return seen[0], seen[1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that queries see."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.halves[0].n_tokens

    def get_max_length(self) -> int:
        """No bound."""
        return -1

    def reset(self) -> None:
        """Forget all tokens."""
        keys, values = (PackedHalf(x.half, x.format, x.cache, x.rotation) for x in self.halves)
        self.halves = (keys, values)
        self.is_initialized = False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep these beams."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these sequences."""
        for half in self.halves:
            half.select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every sequence so many times."""
        for half in self.halves:
            if half.recent is not None:
                every = torch.arange(len(half.recent), device=half.recent.device)
                half.select(every.repeat_interleave(repeats))


class PackedCache(Cache):  # type: ignore[misc]
    """The cache of a model whose checkpoint was exported with formats of keys and values.

        cache = PackedCache.of(model)
        model.generate(**inputs, past_key_values=cache)

    Sequences must be of one length or padded on the right: sinks are the first tokens that it sees.
    It cannot be cropped, so assisted generation is out.
    """

    @classmethod
    def of(cls, model: nn.Module) -> PackedCache:
        """An empty one, as the checkpoint of the model says.

        Raises:
            InvalidArgument: the checkpoint says nothing of its cache.
        """
        config: Any = model.config
        quantization = getattr(config, "quantization_config", None)
        said = getattr(quantization, "kv_cache", None)
        if said is None:
            raise InvalidArgument(
                "The checkpoint has no formats of a KV cache: search with --kv-formats and export "
                "it as packed."
            )
        return cls.in_formats(model, KVCache.from_fields(said["cache"]), said["formats"])

    @classmethod
    def in_formats(
        cls, model: nn.Module, cache: KVCache, formats: Mapping[str, str]
    ) -> PackedCache:
        """An empty one in given formats.

        Args:
            model: that it is for.
            cache: sinks, window and the rest.
            formats: format name of every cache of the model, by layer name.
        """
        rotation = Rotation.of(model) if cache.pre_rope else None
        layers = {}
        for name in formats:
            path = name.rpartition(".")[0]
            halves = (
                PackedHalf(h, catalogue.named(formats[f"{path}.{h}_cache"]), cache, rotation)
                for h in "kv"
            )
            attention: Any = model.get_submodule(path)
            layers[int(attention.layer_idx)] = PackedCacheLayer(*halves)
        return cls(layers=[layers[index] for index in range(len(layers))])

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values held."""
        return sum(half.nbytes for layer in self.layers for half in layer.halves)
