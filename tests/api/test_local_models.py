"""What is said of a model folder from its headers and configuration is what a search finds."""

import json

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from bitfront.api import caches, weights
from bitfront.formats import named
from bitfront.kv_cache import KVCache
from bitfront.models.cache_layers import find_caches
from bitfront.models.experts import separate_experts
from bitfront.models.layers import search_space
from bitfront.space import SearchSpace
from tests.api.test_catalogue import BODY, safetensors
from tests.models import test_experts, test_layers

CACHE = KVCache(("int4_g16", "int8_g32", "bf16"), batch=2, context=300, window=8, sinks=2)


def build(family):
    if family in test_experts.FAMILIES:
        return test_experts.build(family)
    return test_layers.build(family)


@pytest.mark.parametrize(
    "family", ["llama", "qwen3", "phi3", "gpt_neox", "opt", "gpt2", "mixtral", "deepseek_v3"]
)
def test_a_cache_is_as_large_as_the_search_finds_it(family, tmp_path):
    model = build(family)
    model.config.save_pretrained(tmp_path)
    layers = find_caches(model, CACHE)
    menu = [f for f in map(named, CACHE.formats) if all(_fits(x, f) for x in layers)]
    space = SearchSpace(layers, tuple(map(named, CACHE.formats)), kv_cache=CACHE)
    expected = {f.name: sum(space.nbytes(x, f) for x in layers) for f in menu}
    assert caches.nbytes(tmp_path, CACHE) == expected
    assert "bf16" in expected


def _fits(layer, format):
    return CACHE.fits(layer.cache, layer.shape[0], format)


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[" * 100_000,
        b"[]",
        b'{"num_hidden_layers": "2"}',
        b'{"num_hidden_layers": 2, "num_attention_heads": 0, "hidden_size": 64}',
        b'{"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 1e99}',
        b'{"num_hidden_layers": 99999999999, "num_attention_heads": 4, "hidden_size": 64}',
        b'{"num_hidden_layers": 2, "num_attention_heads": 4, "kv_lora_rank": 8}',
        b'{"text_config": {"num_hidden_layers": true}}' + b" " * 2_000_000,
    ],
    ids=range(9),
)
def test_a_configuration_that_says_nothing_gives_no_bytes(config, tmp_path):
    (tmp_path / "config.json").write_bytes(config)
    assert caches.nbytes(tmp_path, CACHE) is None


def test_an_estimate_has_the_bytes_of_the_cache(client, bench):
    folder = bench.settings.model_roots[0] / "small"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(safetensors({"model.layers.0.up.weight": (64, 64)}))
    config = {"num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 128}
    cache = {"formats": ["int4_g32", "bf16"], "batch": 2, "context": 300, "window": 8, "sinks": 2}
    body = {**BODY, "model": "small", "budget": "9MB", "kv_cache": cache}
    assert client.post("/v1/estimate", json=body).json()["model"]["cache_bytes"] is None
    (folder / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 2}))
    answer = client.post("/v1/estimate", json=body).json()["model"]["cache_bytes"]
    kept = KVCache.from_fields(cache)
    halves = [kept.nbytes(half, 64, named("int4_g32")) for half in "kv"]
    assert answer == {"int4_g32": 3 * sum(halves), "bf16": 3 * 2 * 2 * 300 * 64 * 2}
    plain = client.post("/v1/estimate", json={**body, "kv_cache": None}).json()["model"]
    assert plain["cache_bytes"] is None


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss"])
def test_experts_in_a_stack_are_layers_each(family, tmp_path):
    """As transformers names them in memory; gpt_oss has them transposed."""
    config = AutoConfig.for_model(family, **test_experts.FAMILIES[family][0])
    model = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    (tmp_path / "model.safetensors").write_bytes(safetensors(shapes))
    separate_experts(model)
    space = search_space(model, (named("int8_channel"),), None, tied=True)
    found = weights.read(tmp_path)
    layers = found.layers(with_experts=True).values()
    every = sorted(each.shape for each in layers for _ in range(each.n))
    assert every == sorted(x.shape for x in space.layers)
    others = found.layers(with_experts=False).values()
    dense = sorted(x.shape for x in space.layers if x.active == 1)
    assert sorted(each.shape for each in others) == dense


def test_an_estimate_counts_experts_where_they_are_searched(client, bench):
    folder = bench.settings.model_roots[0] / "small"
    folder.mkdir()
    names = {f"model.layers.0.mlp.experts.{i}.up_proj.weight": (64, 32) for i in range(3)}
    names |= {"model.layers.0.mlp.gate.weight": (3, 32), "model.layers.0.q.weight": (32, 32)}
    (folder / "model.safetensors").write_bytes(safetensors(names))
    counts = [
        client.post("/v1/estimate", json={**BODY, "model": "small", "experts": e}).json()["model"]
        for e in ("expert", "none")
    ]
    assert [each["n_layers"] for each in counts] == [4, 1]
