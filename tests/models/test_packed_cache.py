"""What every format that can hold a cache of keys and values promises of it."""

import pytest
import torch

from bitfront.formats import catalogue, named
from bitfront.kv_cache import KVCache, can_hold
from bitfront.models.caches import RoundedCaches, as_matrix
from bitfront.models.packed_cache import PackedHalf
from bitfront.space import Layer, SearchSpace

HELD = [f.name for f in catalogue().values() if can_hold(f)]


def hostile(n_heads, n_tokens, dim):
    """Keys or values `[6, n_heads, n_tokens, head_dim]`: ordinary ones first, then odd ones."""
    generator = torch.Generator().manual_seed(0)
    ordinary, other = torch.randn(2, n_heads, n_tokens, dim, generator=generator)
    zeros = ordinary.clone()
    zeros[:, :, 0] = zeros[:, 7] = 0  # a channel, a token
    flat = torch.full_like(ordinary, 0.3)
    return torch.stack([ordinary, ordinary / other, zeros, flat, ordinary * 1e30, 0 * ordinary])


@pytest.mark.parametrize("half", ["k", "v"])
@pytest.mark.parametrize("name", HELD)
def test_every_format_holds_hostile_keys_and_values(name, half):
    format = named(name)
    group = format.group_columns or 32
    if half == "k":  # any number of channels; sinks, window, two groups and some that wait
        states = hostile(3, 2 + 3 + 2 * group + 5, 1)
    else:
        states = hostile(2, 2 + 3 + 9, group // 2)
    n, n_heads, n_tokens, dim = states.shape
    cache = KVCache((name,), batch=n, context=n_tokens, window=3, sinks=2)
    held, other = (PackedHalf(half, format, cache, None) for _ in range(2))
    for few in states.split(n_tokens // 3, dim=2):
        held.add(few)
    found = held.states(states)
    assert found.isfinite().all()
    assert held.nbytes == cache.nbytes(half, n_heads * dim, format)
    assert (found - states)[0].norm() < 0.65 * states[0].norm()
    other.add(states)  # all at once
    assert torch.equal(other.states(states), found)
    if format.scaled:
        low = slice(cache.sinks, cache.sinks + held.n_low)
        assert held.n_low == (2 * group if half == "k" else 9)
        assert torch.equal(found[:, :, low], as_measured(cache, states, half)[:, :, low])
        assert codes_come_back(held, states[:, :, low], half, group)
    held.select(torch.tensor([1, 0, 1]))
    assert torch.equal(held.states(states), found[[1, 0, 1]])


def as_measured(cache, states, half):
    """What a search makes of them in one pass."""
    format = named(cache.formats[0])
    layers = (Layer("0.v_cache", (128, cache.context), "0.v_cache", 0, "v_cache"),)
    space = SearchSpace(layers, (format,), kv_cache=cache)
    model = torch.nn.Sequential(torch.nn.Identity())
    return RoundedCaches(model, space).rounded(states.bfloat16().float(), half, format)


def codes_come_back(held, states, half, group):
    """Whether the packed codes are those of the states."""
    matrix = as_matrix(states.bfloat16(), half, group if half == "k" else 1)
    format = held.format
    codes, qparams = format.unpack(held.packed, tuple(matrix.shape))
    return torch.equal(codes, format.encode(matrix, qparams))
