"""What a study may ask of a KV cache, and the bytes that follow."""

from dataclasses import replace

import pytest
import torch

from bitfront import Budget, Choice, Layer, SearchSpace, Study, TextSource
from bitfront.costs.latency import Latency
from bitfront.costs.memory import Memory
from bitfront.costs.roofline import Roofline
from bitfront.errors import InvalidArgument, UnknownPlugin
from bitfront.formats import catalogue, named
from bitfront.inputs import check_names
from bitfront.kv_cache import KVCache, can_hold
from bitfront.measurement import sizes_of

CACHE = KVCache(("int2_g32", "int8_g32", "bf16"), batch=3, context=100, window=8, sinks=2)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    layers = (
        Layer("0.q", (64, 64), "0.q", 0, "q"),
        Layer("0.k_cache", (64, 100), "0.k_cache", 0, "k_cache"),
        Layer("0.v_cache", (64, 100), "0.v_cache", 0, "v_cache"),
    )
    menu = tuple(map(named, ("int4_g32", "int8_g32", "int2_g32", "bf16")))
    return SearchSpace(layers, menu, kv_cache=CACHE, cache_only=("int2_g32", "bf16"))


def test_weights_take_formats_of_weights_and_caches_those_of_caches(space):
    assert space.allowed.tolist() == [[True, True, False, False], *[[False, True, True, True]] * 2]


def test_a_space_with_caches_survives_json(space):
    again = SearchSpace.from_json(space.to_json())
    assert again == space
    assert again.digest == space.digest


def test_a_space_without_caches_keeps_the_digest_it_had(space):
    plain = SearchSpace(space.layers[:1], space.formats[:2])
    assert "cache" not in plain.to_json()
    assert plain.of_weights is plain


def test_bytes_count_window_sinks_and_keys_that_wait_for_their_group():
    keys, values = (CACHE.nbytes(half, 64, named("int2_g32")) for half in "kv")
    # 90 tokens have left the window: 64 of them in whole groups of keys, all of them as values.
    per_group = 32 * 2 // 8 + 4  # codes, scale and zero point
    assert keys == 3 * (2 * 64 * per_group + 36 * 64 * 2)
    assert values == 3 * (90 * 2 * per_group + 10 * 64 * 2)
    assert CACHE.nbytes("k", 64, named("bf16")) == 3 * 100 * 64 * 2
    young = replace(CACHE, context=10)
    assert young.nbytes("v", 64, named("int2_g32")) == 3 * 10 * 64 * 2


def test_a_trial_states_both_sizes_and_bits_of_weights_alone(space):
    allocation = space.decode([0, 1, 3])
    sizes = sizes_of(allocation, Memory().cost(space))
    cache = CACHE.nbytes("k", 64, named("int8_g32")) + 3 * 100 * 64 * 2
    assert sizes["cache_bytes"] == cache
    assert sizes["bytes"] == named("int4_g32").nbytes((64, 64)) + cache
    assert sizes["bits"] == 4.0
    assert sizes["bits_per_weight"] == 5.0


def test_bytes_bound_both_and_bits_the_weights(space):
    limits = Budget.parse("40KB,6bpw").limits(space)
    assert limits == {"bytes": 40_000, "weight_bytes": 64 * 64 * 6 // 8}
    assert space.cache_bytes_at_16_bits == 2 * 3 * 100 * 64 * 2
    with pytest.raises(InvalidArgument, match="is not below bf16"):
        Budget.parse("1MB").limits(space)


def test_reading_the_cache_takes_time_on_a_roofline_and_a_table_has_none(space):
    (table,) = Roofline("cpu").cost(space)
    assert table.values[1, 3] > 1.2 * table.values[1, 1] > 0
    with pytest.raises(InvalidArgument, match="no times of attention"):
        Latency("any.json").cost(space)


@pytest.mark.parametrize(
    "name",
    [
        *("int4_channel", "fp8_e4m3", "nvfp4", "lut2_g64", "lut4_g64", "int4_g64_cols"),
        *("slim3_g32", "int4_g128_sparse5", "bit_planes2_g64", "trit_planes_g64", "mxfp4_amxfp4"),
    ],
)
def test_formats_that_store_more_than_scales_of_groups_cannot_hold_a_cache(name):
    with pytest.raises(InvalidArgument, match="a scale, with or without a zero point"):
        KVCache((name,))


@pytest.mark.parametrize("name", ["int1_g32", "int1_g128"])
def test_one_bit_at_the_ends_of_a_range_loses_more_than_zeros_and_is_refused(name):
    """The reason is measured: a format that is refused must deserve it."""
    states, format = torch.randn(64, 128, generator=torch.Generator().manual_seed(0)), named(name)
    qparams = format.qparams(states)
    lost = format.decode(format.encode(states, qparams), qparams) - states
    assert 1.3 < lost.norm() / states.norm() < 2
    with pytest.raises(InvalidArgument, match="Give sign_g32"):
        KVCache((name,))


def test_every_other_format_of_the_catalogue_can():
    held = {f.name for f in catalogue().values() if _is_held(f.name)}
    assert {"bf16", "int4_g32", "int3_g128_sym", "nf4_g64", "mxfp4", "sign_g32"} <= held
    assert held == {f.name for f in catalogue().values() if can_hold(f)}


def _is_held(name: str) -> bool:
    try:
        return bool(KVCache((name,)))
    except InvalidArgument:
        return False


def test_numbers_out_of_range_and_unknown_names_are_refused():
    for wrong in ({"window": 0}, {"batch": 0}, {"context": 0}, {"sinks": -1}):
        with pytest.raises(InvalidArgument, match="at least 1"):
            replace(CACHE, **wrong)
    with pytest.raises(InvalidArgument, match="empty"):
        KVCache(())
    with pytest.raises(UnknownPlugin):
        KVCache(("int4_g33",))
    with pytest.raises(InvalidArgument, match="int4_g32 is named twice"):
        KVCache(("int4_g32", "bf16", "int4_g32"))


def test_batch_and_context_are_written_as_in_a_budget():
    assert KVCache.parse_point("b4c512") == (4, 512)
    assert CACHE.point == "b3c100"
    with pytest.raises(InvalidArgument, match="b1c2048"):
        KVCache.parse_point("c512")


def study(**choices) -> Study:
    text = TextSource("text.txt", 4, 64)
    given = {"budget": Budget.parse("1MB"), "kv_cache": CACHE} | choices
    return Study("model", calibration=text, evaluation=text, **given)


def test_a_study_with_a_cache_survives_json_and_one_without_has_no_trace_of_it():
    assert Study.from_json(study().to_json()) == study()
    assert "kv_cache" not in study(kv_cache=None).to_json()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"budget": Budget.parse("4bpw")}, "does not bound the KV cache"),
        ({"runtime": "vllm", "formats": ("int4_g128_sym",), "pinned": None}, "for transformers"),
        ({"kv_cache": replace(CACHE, window=40)}, "before keys are quantized"),
        ({"task": "images"}, "Models for images have no KV cache"),
        (
            {"budget": Budget.parse("1MB,2ms@b1"), "costs": (Choice("memory"), Choice("roofline"))},
            "2ms@b1 is not at b3c100, where",
        ),
    ],
)
def test_studies_that_would_say_nothing_of_a_cache_are_refused(choices, message):
    with pytest.raises(InvalidArgument, match=message):
        study(**choices)


def test_how_long_samples_are_is_not_known_before_they_are_read():
    text = TextSource("a.safetensors", 4, 8)
    for choices in ({"task": "image-text"}, {"calibration": text}):
        given = {"calibration": replace(text, source="a"), "evaluation": text} | choices
        assert Study("model", Budget.parse("1MB"), **given, kv_cache=CACHE).kv_cache == CACHE


def test_estimators_that_only_rank_are_refused_beside_a_cache():
    with pytest.raises(InvalidArgument, match="take an estimator in nats"):
        check_names(study(estimator=Choice("weight_error")))
