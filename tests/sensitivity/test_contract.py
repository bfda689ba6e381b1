"""What every estimator promises, on the trained tiny Llama."""

import pickle
from dataclasses import replace

import cases
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from bitfront.errors import NonFinite
from bitfront.formats import named
from bitfront.models.bank import WeightBank
from bitfront.models.layers import get_weight, search_space
from bitfront.models.statistics import InputGrams
from bitfront.quantizers import QUANTIZERS
from bitfront.quantizers.rtn import Rtn
from bitfront.sensitivity import ESTIMATORS
from tests.models.test_layers import OUTSIDE, build

NAMES = ESTIMATORS.names()
BOUNDS = {
    "max_sequences": 2,
    "min_probes": 2,
    "max_probes": 2,
    "n_iterations": 2,
    "n_shards": 2,
    "n_sharing": 1,
    "n_measured": 6,
    "population": 8,
    "n_generations": 2,
}


def quick(name):
    """An instance that does little work: bounds lowered where the estimator has them."""
    fields = set(ESTIMATORS.load(name).__dataclass_fields__)
    return ESTIMATORS.build(name, {k: v for k, v in BOUNDS.items() if k in fields})


@pytest.fixture(scope="module")
def small_space(tiny_space):
    """Three kinds of two blocks, two formats: contracts do not need all entries."""
    kinds = {"self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"}
    rows = [x for x in tiny_space.layers if x.block in (0, 3) and x.kind in kinds]
    return replace(tiny_space, layers=tuple(rows), formats=tiny_space.formats[1:3])


@pytest.fixture(scope="module")
def tokens(tiny_tokens):
    return tiny_tokens[:2, :64]


@pytest.fixture
def changed(tiny_llama, tmp_path, small_space):
    """Changes one weight, gives the bank of the changed model, and puts the weight back."""
    layer = small_space.layers[4].name
    weight = get_weight(tiny_llama, layer)
    kept = weight.clone()

    def change(function):
        function(weight)
        return WeightBank.build(tmp_path, tiny_llama, small_space, Rtn(clip_steps=0))

    yield change
    weight.copy_(kept)


def snapshot(model):
    return {
        "weights": {k: v.clone() for k, v in model.state_dict().items()},
        "flags": [(p.requires_grad, p.grad) for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in model.modules()
        ],
        "forwards": ["forward" in m.__dict__ for m in model.modules()],
    }


def assert_untouched(model, before):
    after = snapshot(model)
    for key, weight in before.pop("weights").items():
        assert torch.equal(weight, after["weights"][key]), key
    after.pop("weights")
    assert after == before


@pytest.mark.parametrize("name", NAMES)
def test_default_constructible_and_picklable(name):
    estimator = ESTIMATORS.build(name)
    assert pickle.loads(pickle.dumps(estimator)) == estimator
    assert estimator.needs in {"weights", "activations", "gradients", "forwards"}


@pytest.mark.parametrize("name", NAMES)
def test_table_is_finite_deterministic_and_says_what_made_it(
    name, tiny_llama, tokens, small_space, tiny_bank
):
    before, steps = snapshot(tiny_llama), []
    estimator = quick(name)
    table = estimator.estimate(
        tiny_llama, tokens, small_space, tiny_bank, lambda *step: steps.append(step)
    )
    assert_untouched(tiny_llama, before)
    assert table.values.shape == (6, 2)
    assert table.values.dtype == np.float64
    assert np.isfinite(table.values).all()
    # A few random probes may find a trace below 0, which is clamped.
    assert (table.values[:, 0] != 0).sum() >= 4
    assert table.quantity == ("kl" if estimator.in_nats else "loss")
    assert repr(estimator) in table.source
    assert steps
    assert steps[-1][0] == steps[-1][1]
    assert steps == sorted(steps)
    again = estimator.estimate(tiny_llama, tokens, small_space, tiny_bank)
    np.testing.assert_array_equal(again.values, table.values)
    assert again.source == table.source


@pytest.mark.parametrize("name", NAMES)
def test_non_negative_where_promised(name, tiny_llama, tokens, small_space, tiny_bank):
    estimator = quick(name)
    if estimator.non_negative:
        values = estimator.estimate(tiny_llama, tokens, small_space, tiny_bank).values
        assert values.min() >= 0


@pytest.mark.parametrize("name", NAMES)
def test_source_follows_text_and_bank(name, tiny_llama, tokens, small_space, tiny_bank, changed):
    space = replace(small_space, layers=small_space.layers[-1:])

    def source(text, bank):
        return quick(name).estimate(tiny_llama, text, space, bank).source

    first = source(tokens, tiny_bank)
    assert source(tokens.flip(1), tiny_bank) != first
    assert source(tokens, changed(lambda weight: weight.mul_(2))) != first


@pytest.mark.parametrize("name", NAMES)
def test_dead_layer_costs_nothing(name, tiny_llama, tokens, small_space, changed):
    """A layer of zeros quantizes exactly, so it costs nothing; its gradients are no NaN either."""
    bank = changed(lambda weight: weight.zero_())
    values = quick(name).estimate(tiny_llama, tokens, small_space, bank).values
    assert np.isfinite(values).all()
    assert np.abs(values[4]).max() == 0


@pytest.mark.parametrize("name", NAMES)
def test_constant_column_gives_no_nan(name, tiny_llama, tokens, small_space, changed):
    bank = changed(lambda weight: weight[:, :64].fill_(0.5))
    values = quick(name).estimate(tiny_llama, tokens, small_space, bank).values
    assert np.isfinite(values).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_that_are_all_zero_give_no_nan(
    name, tiny_llama, tokens, small_space, tiny_bank, monkeypatch
):
    """A norm of zeros before the head: no layer moves what is predicted."""
    monkeypatch.setattr(tiny_llama.model.norm, "forward", lambda states: states * 0)
    values = quick(name).estimate(tiny_llama, tokens, small_space, tiny_bank).values
    assert np.isfinite(values).all()


@pytest.mark.parametrize("name", NAMES)
def test_nan_in_the_model_is_refused(name, tiny_llama, tokens, small_space, tiny_bank):
    weight = get_weight(tiny_llama, small_space.layers[4].name)
    kept = weight[0, 0].item()
    weight[0, 0] = torch.nan
    before = snapshot(tiny_llama)
    before.pop("weights")
    try:
        with pytest.raises(NonFinite):
            quick(name).estimate(tiny_llama, tokens, small_space, tiny_bank)
        after = snapshot(tiny_llama)
        after.pop("weights")
        assert after == before
    finally:
        weight[0, 0] = kept


@pytest.mark.parametrize("name", NAMES)
def test_formats_that_do_not_fit_are_left_alone(name, tiny_llama, tokens, small_space, tmp_path):
    menu = (small_space.formats[1], named("int4_g128"))
    space = replace(small_space, formats=menu)
    bank = WeightBank.build(tmp_path, tiny_llama, space, Rtn(clip_steps=0))
    assert not space.allowed.all()
    table = quick(name).estimate(tiny_llama, tokens, space, bank)
    assert np.isfinite(table.values[space.allowed]).all()


@pytest.mark.parametrize("name", NAMES)
def test_ranks_entries_as_measured(name, tiny_llama, tiny_tokens, tiny_space, tiny_bank, measured):
    """The claim, on text that the measured truth has not seen."""
    unseen = tiny_tokens[8:12]
    values = ESTIMATORS.build(name).estimate(tiny_llama, unseen, tiny_space, tiny_bank).values
    overall, within = cases.ESTIMATORS[name]
    assert spearmanr(values.ravel(), measured.values.ravel()).statistic >= overall
    columns = zip(values.T, measured.values.T, strict=True)
    assert np.mean([spearmanr(ours, truth).statistic for ours, truth in columns]) >= within


@pytest.fixture(scope="module", params=OUTSIDE)
def outside(request, tmp_path_factory):
    """A model with layers outside its blocks, and its bank, made by a quantizer that reads them."""
    model = build(request.param)
    menu = (named("int2_channel"), named("int4_channel"))
    space = search_space(model, menu, None, tied=True)
    tokens = torch.randint(3, 96, (2, 32), generator=torch.Generator().manual_seed(0))
    grams = InputGrams(model, tokens, {x.name: x.shape[1] for x in space.layers})
    folder = tmp_path_factory.mktemp("outside")
    bank = WeightBank.build(folder, model, space, QUANTIZERS.build("gptq"), grams)
    return model, tokens, space, bank


@pytest.mark.parametrize("name", NAMES)
def test_layers_outside_the_blocks_are_estimated(name, outside):
    model, tokens, space, bank = outside
    before = snapshot(model)
    table = quick(name).estimate(model, tokens, space, bank)
    assert_untouched(model, before)
    rows = [i for i, x in enumerate(space.layers) if x.block < 0]
    assert rows
    assert np.isfinite(table.values).all()
    assert (table.values[rows] != 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_that_the_text_does_not_reach_is_finite(
    name, tiny_llama, tokens, small_space, tiny_bank, monkeypatch
):
    """As an expert that no token was sent to."""
    mlp = tiny_llama.model.layers[3].mlp
    monkeypatch.setattr(mlp, "forward", torch.zeros_like)
    values = quick(name).estimate(tiny_llama, tokens, small_space, tiny_bank).values
    assert np.isfinite(values).all()
    assert values[:3].any()
