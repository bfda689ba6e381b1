"""A forward pass with rounded caches is what decoding with the packed cache gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument, InvalidModel
from bitfront.formats import named
from bitfront.kv_cache import KVCache
from bitfront.models.bank import WeightBank
from bitfront.models.cache_layers import find_caches, with_caches
from bitfront.models.caches import RoundedCaches
from bitfront.models.data import digest
from bitfront.models.layers import search_space
from bitfront.models.packed_cache import PackedCache
from bitfront.models.patch import PatchedModel
from bitfront.models.prefix import BlockStart
from bitfront.models.reference import Reference
from bitfront.models.slopes import slopes
from bitfront.quantizers.rtn import Rtn
from bitfront.sensitivity import ESTIMATORS
from bitfront.space import SearchSpace
from tests.models.test_layers import build

MENU = ("int2_g32", "int4_g32", "nf3_g32", "bf16")
CACHE = KVCache(MENU, batch=2, context=72, window=8, sinks=2)


def space_of(model, cache=CACHE) -> SearchSpace:
    return SearchSpace(find_caches(model, cache), tuple(map(named, cache.formats)), kv_cache=cache)


@pytest.fixture(scope="module")
def space(tiny_llama) -> SearchSpace:
    return space_of(tiny_llama)


@pytest.fixture(scope="module")
def tokens(tiny_tokens) -> torch.Tensor:
    return tiny_tokens[:2, :72]


@pytest.fixture(scope="module")
def everything(tiny_llama, tmp_path_factory):
    """Weights of two kinds and caches of the tiny Llama, with the bank of these weights."""
    all_weights = search_space(tiny_llama, (named("int2_g32"), named("int4_g32")), None, True)
    kinds = {"self_attn.o_proj", "mlp.down_proj"}
    rows = tuple(x for x in all_weights.layers if x.kind in kinds)
    of_weights = replace(all_weights, layers=rows)
    whole = with_caches(of_weights, tiny_llama, CACHE)
    return whole, WeightBank.build(tmp_path_factory.mktemp("bank"), tiny_llama, whole, Rtn())


def mixed(space: SearchSpace) -> dict[str, str]:
    """Every format of the menu somewhere."""
    return {x.name: MENU[i % len(MENU)] for i, x in enumerate(space.layers)}


@torch.no_grad()
def by_steps(model, cache, tokens) -> torch.Tensor:
    rows = [model(tokens[:, [i]], past_key_values=cache).logits for i in range(tokens.shape[1])]
    return torch.cat(rows, dim=1)


@torch.no_grad()
def rounded(model, space, formats, tokens) -> torch.Tensor:
    with RoundedCaches(model, space) as caches:
        caches.apply(formats)
        return model(tokens, use_cache=False).logits


def test_caches_are_layers_of_their_blocks(space):
    first, second = space.layers[:2]
    assert first.name == "model.layers.0.self_attn.k_cache"
    assert (second.kind, second.block, second.shape) == ("self_attn.v_cache", 0, (32, 72))
    assert len({x.group for x in space.layers}) == len(space.layers) == 8
    assert space.n_weights == 0


@pytest.mark.parametrize("pre_rope", [False, True])
def test_one_pass_is_step_by_step_decoding_and_bytes_are_those_predicted(
    tiny_llama, tokens, pre_rope
):
    space = space_of(tiny_llama, replace(CACHE, pre_rope=pre_rope))
    formats = mixed(space)
    whole = rounded(tiny_llama, space, formats, tokens)
    cache = PackedCache.in_formats(tiny_llama, space.kv_cache, formats)
    steps = by_steps(tiny_llama, cache, tokens)
    with torch.no_grad():
        own = tiny_llama(tokens, use_cache=False).logits
    change = (own - steps).square().mean().sqrt()
    assert (whole - steps).square().mean().sqrt() < 1e-3 * change
    assert cache.nbytes == sum(space.nbytes(x, named(formats[x.name])) for x in space.layers)


def test_no_token_sees_what_later_ones_make_of_the_cache(tiny_llama, space, tokens):
    other = tokens.clone()
    other[:, 50:] = other[:, 50:].flip(1)
    first, second = (rounded(tiny_llama, space, mixed(space), x)[:, :50] for x in (tokens, other))
    assert torch.equal(first, second)


def test_what_is_in_the_window_is_not_rounded(tiny_llama, space, tokens):
    n = CACHE.sinks + CACHE.window
    alike = {x.name: "bf16" for x in space.layers}
    harsh = {x.name: "int2_g32" for x in space.layers}
    few, all_16 = (rounded(tiny_llama, space, f, tokens[:, :n]) for f in (harsh, alike))
    assert torch.equal(few, all_16)
    # One token more, and the first value has left the window.
    few, all_16 = (rounded(tiny_llama, space, f, tokens[:, : n + 1]) for f in (harsh, alike))
    assert torch.equal(few[:, :n], all_16[:, :n])
    assert not torch.equal(few[:, n], all_16[:, n])


def test_the_model_attends_by_itself_again_afterwards(tiny_llama, space, tokens):
    with torch.no_grad():
        before = tiny_llama(tokens).logits
        with RoundedCaches(tiny_llama, space) as caches:
            caches.apply(mixed(space))
            assert not torch.equal(tiny_llama(tokens).logits, before)
        assert torch.equal(tiny_llama(tokens).logits, before)
    assert tiny_llama.config._attn_implementation == "sdpa"


def test_beams_and_prompts_run_through_the_packed_cache(tiny_llama, space, tokens):
    greedy = {"do_sample": False, "max_new_tokens": 12, "pad_token_id": 0}
    prompt = {"input_ids": tokens[:1, :48], "attention_mask": torch.ones(1, 48, dtype=torch.long)}
    every_16 = PackedCache.in_formats(tiny_llama, CACHE, {x.name: "bf16" for x in space.layers})
    plain = tiny_llama.generate(**prompt, **greedy, num_beams=3)
    assert torch.equal(
        tiny_llama.generate(**prompt, **greedy, num_beams=3, past_key_values=every_16), plain
    )
    cache = PackedCache.in_formats(tiny_llama, CACHE, mixed(space))
    tiny_llama.generate(**prompt, **greedy, num_beams=3, past_key_values=cache)
    assert cache.get_seq_length() == 48 + 11
    held = cache.nbytes
    cache.reset()
    assert cache.nbytes == cache.get_seq_length() == 0
    tiny_llama.generate(**prompt, **greedy, num_beams=3, past_key_values=cache)
    assert cache.nbytes == held
    one = replace(space.kv_cache, batch=3, context=59)
    assert cache.nbytes == sum(
        one.nbytes(x.cache, x.shape[0], named(mixed(space)[x.name])) for x in space.layers
    )


def test_every_estimator_in_nats_makes_one_table_of_weights_and_caches(
    tiny_llama, everything, tokens
):
    space, bank = everything
    is_cache = np.array([bool(x.cache) for x in space.layers])
    tables = {}
    for name in ("fisher_directional", "leave_one_in", "kv_norms"):
        estimator = ESTIMATORS.build(name)
        tables[name] = estimator.whole_table(tiny_llama, tokens, space, bank)
        assert (tables[name].values[space.allowed] > 0).all()
    made_of = f"tokens {digest(tokens)[:16]}, bank {bank.digest[:16]}"
    for name, end in (("kv_norms", ""), ("fisher_directional", ", caches by cache_fisher")):
        label = ESTIMATORS.build(name).label
        assert tables[name].source == f"{label}, {made_of}{end}"  # results folders have it
    truth = tables["leave_one_in"]
    usable = space.allowed & [f.scaled for f in space.formats]
    for name, at_least in (("fisher_directional", 0.9), ("kv_norms", 0.75)):
        for rows in (is_cache, is_cache | True):
            entries = usable & rows[:, None]
            pair = tables[name].values[entries], truth.values[entries]
            assert spearmanr(*pair).statistic > at_least, name
            assert 0.5 < np.median(pair[0] / pair[1]) < 2, name
    # Norms are made into nats by what all keys, or all values, were measured to cost.
    keys = [i for i, x in enumerate(space.layers) if x.cache == "k"]
    column = space.column("int2_g32")
    reference = Reference.of(tiny_llama, tokens)
    with PatchedModel(tiny_llama, bank) as patched:
        patched.apply(Allocation({space.layers[i].name: "int2_g32" for i in keys}))
        kl = BlockStart(tiny_llama, reference).kl()
    assert tables["kv_norms"].values[keys, column].sum() == pytest.approx(kl)


def test_norms_need_gradients_only_where_the_estimator_of_weights_does(
    tiny_llama, everything, tokens, monkeypatch
):
    space, bank = everything

    def refused(*_args, **_kwargs):
        raise RuntimeError("a backward pass")

    monkeypatch.setattr(torch.autograd, "backward", refused)
    assert ESTIMATORS.load("kv_norms").needs == "gradients"
    with pytest.raises(RuntimeError, match="backward"):
        ESTIMATORS.build("kv_norms").whole_table(tiny_llama, tokens[:1], space, bank)
    measuring = ESTIMATORS.build("kv_norms", {"weights": "leave_one_in"})
    table = measuring.whole_table(tiny_llama, tokens[:1], space, bank)
    assert (table.values[space.allowed] > 0).all()


def test_slopes_say_what_leaving_a_format_of_a_cache_gains(tiny_llama, everything, tokens):
    space, bank = everything
    allocation = space.decode(np.zeros(len(space.groups), dtype=int))
    reference = Reference.of(tiny_llama, tokens)
    column, rows = space.column("int4_g32"), np.flatnonzero([bool(x.cache) for x in space.layers])
    with PatchedModel(tiny_llama, bank) as patched:
        patched.apply(allocation)
        found = slopes(tiny_llama, reference, space, bank, allocation)
        before = BlockStart(tiny_llama, reference).kl()
        measured = []
        for row in rows:
            changed = {**allocation.formats, space.layers[row].name: "int4_g32"}
            patched.apply(Allocation(changed))
            measured.append(BlockStart(tiny_llama, reference).kl() - before)
    assert (found.values[rows, space.column("int2_g32")] == 0).all()
    # Beside weights in 2 bits single caches matter little: signs of the larger ones, and the sum.
    assert np.sign(found.values[rows, column].sum()) == np.sign(sum(measured))


@pytest.mark.parametrize("family", ["qwen3", "phi3", "gpt_neox", "opt", "gpt2", "mixtral"])
def test_caches_of_other_families_decode_as_they_are_measured(family):
    model = build(family)
    space = space_of(model, replace(CACHE, formats=("nf4_g32", "bf16"), window=4))
    formats = {x.name: "nf4_g32" if x.cache == "k" else "bf16" for x in space.layers}
    tokens = torch.randint(3, 90, (2, 48), generator=torch.Generator().manual_seed(0))
    whole = rounded(model, space, formats, tokens)
    cache = PackedCache.in_formats(model, space.kv_cache, formats)
    torch.testing.assert_close(by_steps(model, cache, tokens), whole, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("family", "fields", "cache", "message"),
    [
        ("bert", {"is_decoder": False}, CACHE, "earlier tokens"),
        ("gemma3_text", {}, CACHE, "sliding_attention"),
        ("opt", {}, replace(CACHE, pre_rope=True), "rotary embeddings"),
        ("llama", {"attn_implementation": "eager"}, CACHE, "attends by eager"),
    ],
)
def test_models_without_such_a_cache_are_refused(family, fields, cache, message):
    with pytest.raises(InvalidModel, match=message):
        find_caches(build(family, **fields), cache)


def test_a_model_without_formats_of_a_cache_has_no_packed_one(tiny_llama):
    with pytest.raises(InvalidArgument, match="--kv-formats"):
        PackedCache.of(tiny_llama)
