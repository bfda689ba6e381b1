"""Loss of pairs: that of their weights and what rounding inputs adds, held against measurements."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from bitfront import Budget, Choice, Study
from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.inputs import check_names
from bitfront.kernels.weights import rounded_inputs
from bitfront.kv_cache import KVCache
from bitfront.models.bank import WeightBank
from bitfront.models.cache_layers import with_caches
from bitfront.models.layers import get_weight, search_space
from bitfront.quantizers.rtn import Rtn
from bitfront.sensitivity import ESTIMATORS
from bitfront.sensitivity._inputs import of_weight_formats

NAMES = (
    "int8_g32",
    "int8_g32_aint8",
    "int8_g32_aint4",
    "int4_g32",
    "int4_g32_aint4",
    "mxfp4_amxfp4",
)


@pytest.fixture(scope="module")
def space(tiny_llama):
    return search_space(tiny_llama, tuple(map(named, NAMES)), None, True)


@pytest.fixture(scope="module")
def bank(tiny_llama, space, tmp_path_factory):
    return WeightBank.build(tmp_path_factory.mktemp("bank"), tiny_llama, space, Rtn(clip_steps=0))


@pytest.fixture(scope="module")
def measured(tiny_llama, tiny_tokens, space, bank):
    estimator = ESTIMATORS.build("leave_one_in", {"max_sequences": 2})
    return estimator.whole_table(tiny_llama, tiny_tokens[8:10], space, bank)


def test_an_estimate_ranks_pairs_as_measurements_do(tiny_llama, tiny_tokens, space, bank, measured):
    estimator = ESTIMATORS.build("fisher_directional")
    table = estimator.whole_table(tiny_llama, tiny_tokens[:8], space, bank)
    assert table.source.endswith("inputs by input_fisher")
    assert table.quantity == "kl"
    assert spearmanr(table.values.ravel(), measured.values.ravel()).statistic > 0.95
    rounded = [NAMES.index(x) for x in ("int8_g32_aint4", "int4_g32_aint4", "mxfp4_amxfp4")]
    ratio = table.values[:, rounded] / measured.values[:, rounded]
    assert 0.6 < np.median(ratio) < 1.6  # nats, not only ranks
    # weights alone are what the estimator says of them
    alone = ESTIMATORS.build("fisher_directional").estimate(
        tiny_llama, tiny_tokens[:8], of_weight_formats(space)[0], bank
    )
    np.testing.assert_allclose(table.values[:, 0], alone.values[:, 0], rtol=1e-6)


def test_output_error_is_that_of_both_roundings(tiny_llama, tiny_tokens, space, bank):
    tokens, row = tiny_tokens[:2], 3
    layer, seen = space.layers[row], []
    hook = tiny_llama.get_submodule(layer.name).register_forward_pre_hook(
        lambda _, args: seen.append(args[0].detach().reshape(-1, args[0].shape[-1]))
    )
    with torch.no_grad():
        tiny_llama(tokens)
    hook.remove()
    inputs, weight = torch.cat(seen), get_weight(tiny_llama, layer.name)
    for relative in (False, True):
        estimator = ESTIMATORS.build("output_error", {"relative": relative})
        table = estimator.whole_table(tiny_llama, tokens, space, bank)
        whole = float((inputs @ weight.T).square().sum(-1).mean()) if relative else 1.0
        for column, name in enumerate(NAMES):
            change = rounded_inputs(inputs, named(name), None) - inputs
            error = bank.weight(layer.name, name) - weight
            expected = (inputs @ error.T).square().sum(-1) + (change @ weight.T).square().sum(-1)
            assert table.values[row, column] == pytest.approx(
                float(expected.mean()) / whole, rel=1e-3
            )
        assert table.source.endswith("inputs by input_energy")


def test_estimators_that_only_rank_say_that_they_do_not_judge_inputs(
    tiny_llama, tiny_tokens, space, bank
):
    for name in ("weight_error", "activation_aware", "zscore_density"):
        with pytest.raises(InvalidArgument, match="does not judge what inputs are rounded to"):
            ESTIMATORS.build(name).whole_table(tiny_llama, tiny_tokens[:2], space, bank)
        study = Study("m", Budget(4, "bpw"), formats=NAMES, estimator=Choice(name))
        with pytest.raises(InvalidArgument, match="take an estimator in nats"):
            check_names(study)


def test_a_menu_whose_pairs_cost_as_much_as_their_weights_is_warned_of(tiny_folder, caplog):
    bops = (Choice("memory"), Choice("bops"))
    study = Study(str(tiny_folder), Budget(4, "bpw"), formats=NAMES)
    check_names(study)
    assert "int8_g32_aint8 costs as much as int8_g32" in caplog.text
    caplog.clear()
    check_names(replace(study, budget=Budget.parse("4bpw,1Gbops"), costs=bops))
    check_names(replace(study, formats=NAMES[1:3]))
    assert not caplog.text


def test_the_space_of_weights_alone_allows_what_some_pair_allows(tiny_llama, space):
    cache = KVCache(("int8_g32", "int2_g32"), context=128)
    pairs = ("int4_g32_aint8", "int8_g32_aint8", "int4_g32_aint4_g128", "int4_g64_aint4_g128")
    menu = tuple(map(named, pairs))
    whole = with_caches(search_space(tiny_llama, menu, None, True), tiny_llama, cache)
    alone, at = of_weight_formats(whole)
    assert [alone.formats[column].name for column in at] == [
        *("int4_g32", "int8_g32", "int4_g32", "int4_g64", "int8_g32", "int2_g32")
    ]
    for row, layer in enumerate(whole.layers):
        allowed = {f.name for f, may in zip(alone.formats, alone.allowed[row], strict=True) if may}
        # 64 columns are no whole groups of 128
        wide = {"int4_g64"} if layer.shape[1] == 128 and not layer.cache else set()
        of_cache = {"int8_g32", "int2_g32"}
        assert allowed == (of_cache if layer.cache else {"int4_g32", "int8_g32"} | wide)
    assert alone.cache_only == ("int2_g32",)


def test_pairs_and_caches_have_one_table(tiny_llama, tiny_tokens, tmp_path):
    menu = tuple(map(named, ("int4_g32", "int4_g32_aint8")))
    of_weights = search_space(tiny_llama, menu, None, True)
    few = replace(of_weights, layers=of_weights.layers[:4])
    cache = KVCache(("int4_g32", "bf16"), context=64, window=8, sinks=2)
    whole = with_caches(few, tiny_llama, cache)
    bank = WeightBank.build(tmp_path, tiny_llama, whole, Rtn(clip_steps=0))
    table = ESTIMATORS.build("fisher").whole_table(tiny_llama, tiny_tokens[:2, :64], whole, bank)
    assert table.values.shape == (4 + 8, 3)
    assert (table.values[:4, 1] > table.values[:4, 0]).all()
    assert (table.values[4:, 0] > 0).all()
    assert not table.values[4:, 1].any()
