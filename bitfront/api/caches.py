"""What the configuration of a model tells of its KV cache, without weights and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitfront import formats
from bitfront.kv_cache import KVCache
from bitfront.seeing import read_config

_MAX_BYTES = 1_000_000
_MAX_NUMBER = 2**20


def nbytes(folder: Path, cache: KVCache) -> dict[str, int] | None:
    """Bytes of the whole cache in each format of its menu that fits every block.

    Args:
        folder: of the model.
        cache: menu, batch and context.

    Returns:
        Nothing where the configuration does not say how large keys and values are.
    """
    found = _channels(_config(folder))
    if found is None:
        return None
    n_blocks, halves = found
    made = {}
    for format in map(formats.named, cache.formats):
        if all(cache.fits(half, n, format) for half, n in halves.items()):
            sizes = (cache.nbytes(half, n, format) for half, n in halves.items())
            made[format.name] = n_blocks * sum(sizes)
    return made


def _config(folder: Path) -> Mapping[str, Any]:
    """Of the language model; empty where there is none that can be read."""
    config = read_config(folder, _MAX_BYTES)
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _channels(config: Mapping[str, Any]) -> tuple[int, dict[str, int]] | None:
    """Number of blocks, and channels of all heads of keys and of values; `None` if not told."""
    n_blocks = _number(config, "num_hidden_layers", "n_layer")
    n_heads = _number(config, "num_attention_heads", "n_head")
    width = _number(config, "hidden_size", "n_embd")
    if not n_blocks or not n_heads:
        return None
    if "kv_lora_rank" in config:  # keys and values of all heads, as they are unpacked
        parts = [_number(config, f"{x}_head_dim") for x in ("qk_nope", "qk_rope", "v")]
        if not all(parts):
            return None
        return n_blocks, {"k": n_heads * (parts[0] + parts[1]), "v": n_heads * parts[2]}
    size = _number(config, "head_dim") or width // n_heads
    n_channels = size * (_number(config, "num_key_value_heads") or n_heads)
    return (n_blocks, {"k": n_channels, "v": n_channels}) if n_channels else None


def _number(config: Mapping[str, Any], *names: str) -> int:
    """The first of these that is there; 0 where none is, or it is none that a model has."""
    value = next((config[name] for name in names if name in config), None)
    return value if type(value) is int and 0 < value <= _MAX_NUMBER else 0
