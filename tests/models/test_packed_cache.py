"""What every format that can hold a cache of keys and values promises of it."""

import pytest
import torch

from bitfront.formats import catalogue, named
from bitfront.kv_cache import KVCache, can_hold
from bitfront.models.caches import RoundedCaches, as_matrix
from bitfront.models.packed_cache import PackedHalf
from bitfront.space import Layer, SearchSpace

HELD = [f.name for f in catalogue().values() if can_hold(f)]


def hostile(shape):
    """Keys or values `[n, n_heads, n_tokens, head_dim]` by what is odd about them."""
    generator = torch.Generator().manual_seed(0)
    ordinary, other = (torch.randn(shape, generator=generator) for _ in range(2))
    zeros = ordinary.clone()
    zeros[:, :, :, 0] = zeros[:, :, 7] = 0  # a channel, a token
    return {
        "ordinary": ordinary,
        "tails": ordinary / other,
        "zeros": zeros,
        "constant": torch.full(shape, 0.3),
        "huge": ordinary * 1e30,
        "nothing": torch.zeros(shape),
    }


@pytest.mark.parametrize("name", HELD)
def test_every_format_holds_hostile_keys_and_values(name):
    format = named(name)
    group = format.group_columns or 32
    n_tokens = 2 + 3 + 2 * group + 5  # sinks, window, two groups and some that wait
    cache = KVCache((name,), batch=2, context=n_tokens, window=3, sinks=2)
    layers = (Layer("0.v_cache", (group, n_tokens), "0.v_cache", 0, "v_cache"),)
    whole = RoundedCaches(
        torch.nn.Sequential(torch.nn.Identity()), SearchSpace(layers, (format,), kv_cache=cache)
    )
    for half, n_heads, dim in (("k", 3, 1), ("v", 2, group // 2)):  # keys take any width
        for case, states in hostile((2, n_heads, n_tokens, dim)).items():
            where = f"{case} {half}"
            held, others = (PackedHalf(half, format, cache, None) for _ in range(2))
            for few in states.split(group // 2 + 3, dim=2):
                held.add(few)
            found = held.states(states)
            assert found.isfinite().all(), where
            assert held.nbytes == cache.nbytes(half, n_heads * dim, format), where
            others.add(states)  # all at once
            assert torch.equal(others.states(states), found), where
            if format.scaled:
                low = slice(cache.sinks, cache.sinks + held.n_low)
                seen = whole.rounded(states.bfloat16().float(), half, format)
                assert torch.equal(found[:, :, low], seen[:, :, low]), where
                assert codes_come_back(held, states[:, :, low], half, group), where
            if case == "ordinary":
                assert (found - states).norm() < 0.65 * states.norm(), where
            held.select(torch.tensor([1, 0, 1]))
            assert torch.equal(held.states(states), found[[1, 0, 1]]), where


def codes_come_back(held, states, half, group):
    """Whether the packed codes are those of the states."""
    matrix = as_matrix(states.bfloat16(), half, group if half == "k" else 1)
    format = held.format
    codes, qparams = format.unpack(held.packed, tuple(matrix.shape))
    return torch.equal(codes, format.encode(matrix, qparams))
