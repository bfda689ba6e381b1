"""Estimators on a mixture of experts, some of which the text hardly visits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from bitfront.experts import TokensSeen
from bitfront.formats import named
from bitfront.models.bank import WeightBank
from bitfront.models.experts import tokens_seen
from bitfront.models.gradients import errors
from bitfront.models.layers import get_weight, search_space
from bitfront.models.statistics import InputGrams
from bitfront.quantizers import QUANTIZERS
from bitfront.quantizers.rtn import Rtn
from bitfront.sensitivity import ESTIMATORS
from bitfront.sensitivity._unseen import imputed
from bitfront.sensitivity.fisher_directional import FisherDirectional
from bitfront.sensitivity.leave_one_in import LeaveOneIn
from tests.sensitivity.test_contract import assert_untouched, quick, snapshot

MENU = ("int2_g64", "int4_g64")


@pytest.fixture(scope="module")
def space(tiny_moe):
    return search_space(tiny_moe, tuple(map(named, MENU)), None, tied=False)


@pytest.fixture(scope="module")
def bank(tiny_moe, space, tmp_path_factory):
    return WeightBank.build(tmp_path_factory.mktemp("bank"), tiny_moe, space, Rtn(clip_steps=0))


def part_of(space, *ends):
    """The layers whose names end so."""
    return replace(space, layers=tuple(x for x in space.layers if x.name.endswith(ends)))


@pytest.mark.parametrize("name", ESTIMATORS.names())
def test_every_estimator_runs_where_an_expert_sees_nothing(
    name, tiny_moe, tiny_tokens, space, bank
):
    tokens = tiny_tokens[:2, :16]
    assert min(tokens_seen(tiny_moe, tokens).counts["model.layers.1.mlp.experts"]) == 0
    before = snapshot(tiny_moe)
    few = part_of(space, *(f"1.mlp.experts.{n}.down_proj" for n in range(8)), "o_proj")
    table = quick(name).estimate(tiny_moe, tokens, few, bank)
    assert_untouched(tiny_moe, before)
    assert np.isfinite(table.values).all()
    assert (table.values[[x.active == 1 for x in few.layers], 0] != 0).any()


def test_scores_of_experts_rank_what_is_measured(tiny_moe, tiny_tokens, space, bank):
    """Over experts of one kind and format, which the others' sizes do not help."""
    down = replace(
        part_of(space, *(f"experts.{n}.down_proj" for n in range(8))), formats=space.formats[:1]
    )
    estimated = FisherDirectional().estimate(tiny_moe, tiny_tokens[:8], down, bank).values
    measured = LeaveOneIn().estimate(tiny_moe, tiny_tokens[8:11], down, bank).values
    assert spearmanr(estimated.ravel(), measured.ravel()).statistic > 0.85


def test_an_unseen_expert_gets_the_median_of_its_block_by_weight_error(
    tiny_moe, tiny_tokens, space, bank
):
    table = FisherDirectional().estimate(tiny_moe, tiny_tokens[:2, :64], space, bank)
    names = ["model.layers.0.mlp.experts", "model.layers.1.mlp.experts"]
    seen = TokensSeen({names[0]: (100,) * 8, names[1]: (100,) * 7 + (3,)})
    made = imputed(table, seen, tiny_moe, bank)
    assert "1 of 16 experts saw too few tokens: their scores are imputed" in made.note
    row_of = {x.name: row for row, x in enumerate(space.layers)}
    for part in ("gate_up_proj", "down_proj"):
        rows = [row_of[f"{names[1]}.{index}.{part}"] for index in range(8)]
        squares = np.array([
            [float(e.square().sum()) for _, e in errors(
                get_weight(tiny_moe, space.layers[row].name), space, bank, row
            )]
            for row in rows
        ])  # fmt: skip
        rate = np.median(table.values[rows[:7]] / squares[:7], axis=0)
        np.testing.assert_allclose(made.values[rows[7]], rate * squares[7], rtol=1e-6)
        np.testing.assert_array_equal(made.values[rows[:7]], table.values[rows[:7]])
    assert imputed(table, TokensSeen({}), tiny_moe, bank) is table


def test_a_block_where_all_are_unseen_asks_the_others(tiny_moe, tiny_tokens, space, bank):
    table = FisherDirectional().estimate(tiny_moe, tiny_tokens[:2, :64], space, bank)
    names = ["model.layers.0.mlp.experts", "model.layers.1.mlp.experts"]
    blind = imputed(table, TokensSeen({names[0]: (0,) * 8, names[1]: (0,) * 8}), tiny_moe, bank)
    np.testing.assert_array_equal(blind.values, table.values)
    half = imputed(table, TokensSeen({names[0]: (100,) * 8, names[1]: (0,) * 8}), tiny_moe, bank)
    changed = [
        x.name
        for x, row in zip(space.layers, half.values != table.values, strict=True)
        if row.any()
    ]
    assert changed
    assert all(name.startswith(names[1]) for name in changed)


@pytest.mark.parametrize("name", QUANTIZERS.names())
def test_every_quantizer_takes_the_gram_of_an_expert_that_saw_nothing(
    name, tiny_moe, tiny_tokens, space
):
    tokens = tiny_tokens[:2, :16]
    counts = tokens_seen(tiny_moe, tokens).counts["model.layers.1.mlp.experts"]
    layer = f"model.layers.1.mlp.experts.{counts.index(0)}.down_proj"
    gram = InputGrams(tiny_moe, tokens, {layer: 64})[layer]
    assert not gram.any()
    weight = get_weight(tiny_moe, layer)
    made = QUANTIZERS.build(name).quantize(weight, named("int4_g64"), gram).dequantize()
    assert (made - weight).norm() < 0.15 * weight.norm()


def test_a_bank_rounds_an_expert_that_saw_nothing_as_rtn_does(tiny_moe, space, tmp_path):
    alone = part_of(space, "1.mlp.experts.4.down_proj")
    name, gptq = alone.layers[0].name, QUANTIZERS.build("gptq")
    blind = WeightBank.build(tmp_path, tiny_moe, alone, gptq, {name: torch.zeros(64, 64)})
    plain = WeightBank.build(tmp_path, tiny_moe, alone, Rtn())
    seeing = WeightBank.build(tmp_path, tiny_moe, alone, gptq, {name: torch.eye(64)})
    assert blind.entries == plain.entries
    assert seeing.entries != plain.entries
