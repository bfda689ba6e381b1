"""Estimators of activations and weights, by their definitions."""

import cases
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.nn.functional import cosine_similarity

from bitfront.errors import InvalidArgument
from bitfront.models import gradients
from bitfront.models.layers import blocks, get_weight
from bitfront.sensitivity import ESTIMATORS
from bitfront.sensitivity.activation_entropy import entropy
from bitfront.sensitivity.salience import Salience
from bitfront.sensitivity.weight_error import WeightError

ROW = 9  # a layer of the second block


def seen_by(model, module, tokens):
    """Inputs and outputs of a module over the text, flattened over tokens."""
    kept = []
    hook = module.register_forward_hook(lambda _, args, out: kept.append((args[0], out)))
    with torch.no_grad():
        model(tokens)
    hook.remove()
    inputs, outputs = kept[0]
    outputs = outputs[0] if isinstance(outputs, tuple) else outputs
    return inputs.flatten(0, 1), outputs.flatten(0, 1)


@pytest.fixture
def made(tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    """Estimates on three sequences, and the error and relative error of one entry."""

    def make(name, **params):
        estimator = ESTIMATORS.build(name, params)
        given = (tiny_llama, tiny_tokens[:3], tiny_space, tiny_bank)
        return estimator.estimate(*given).values[ROW, 0]

    name = tiny_space.layers[ROW].name
    weight = get_weight(tiny_llama, name)
    error = tiny_bank.weight(name, tiny_space.formats[0].name) - weight
    return make, name, error, float(error.square().sum() / weight.square().sum())


def test_activation_aware_weights_columns_by_their_mean_square(made, tiny_llama, tiny_tokens):
    make, name, error, _ = made
    inputs, _ = seen_by(tiny_llama, tiny_llama.get_submodule(name), tiny_tokens[:3])
    plain = float((error.square() * inputs.square().mean(dim=0)).sum())
    assert make("activation_aware") == pytest.approx(plain, rel=1e-4)
    shift = float((error @ inputs.mean(dim=0)).square().sum())
    assert make("activation_aware", bias=True) == pytest.approx(plain + shift, rel=1e-4)


def test_layer_influence_is_one_minus_the_mean_cosine(made, tiny_llama, tiny_tokens, tiny_space):
    make, _, _, relative = made
    block = blocks(tiny_llama)[tiny_space.layers[ROW].block]
    turned = 1 - cosine_similarity(*seen_by(tiny_llama, block, tiny_tokens[:3])).mean().item()
    assert make("layer_influence") == pytest.approx(turned * relative, rel=1e-3)


def test_means_do_not_depend_on_how_passes_are_cut(made, monkeypatch):
    make, *_ = made
    names = ("activation_aware", "layer_influence", "activation_entropy")
    whole = [make(name) for name in names]
    monkeypatch.setattr(gradients, "TOKENS_PER_PASS", 128)
    np.testing.assert_allclose([make(name) for name in names], whole, rtol=1e-4)


def test_entropy_of_a_uniform_density_is_the_log_of_its_width():
    counts, widths = np.array([0, 300, 100, 0]), np.array([1.0, 3.0, 1.0, 9.0])
    assert entropy(counts, widths) == pytest.approx(np.log(4.0))


def test_activation_entropy_is_near_that_of_gaussian_values(made, tiny_llama, tiny_tokens):
    """The hidden state is no Gaussian of equal variances: its entropy is below, not far."""
    make, _, _, relative = made
    _, outputs = seen_by(tiny_llama, blocks(tiny_llama)[1], tiny_tokens[:3])
    gaussian = float(outputs.std()) * np.sqrt(2 * np.pi * np.e)
    assert 0.5 * gaussian < make("activation_entropy") / relative < gaussian


def test_zscore_density_is_a_share_of_the_block(made, tiny_llama, tiny_space):
    make, _, _, relative = made
    block = tiny_space.layers[ROW].block
    names = [x.name for x in tiny_space.layers if x.block == block]
    weights = torch.cat([get_weight(tiny_llama, name).flatten() for name in names])
    share = ((weights - weights.mean()) / weights.std() > 1).double().mean().item()
    assert make("zscore_density") == pytest.approx(share * relative, rel=1e-3)


@pytest.mark.parametrize("name", cases.BLOCK_SCORES)
def test_block_scores_rank_as_far_as_was_measured(
    name, tiny_llama, tiny_tokens, tiny_space, tiny_bank, measured
):
    """From both sides: what does not show of a paper's claim is a figure like any other."""
    given = (tiny_llama, tiny_tokens[8:12], tiny_space, tiny_bank)
    scored = ESTIMATORS.build(name).estimate(*given).values
    plain = WeightError(relative=True).estimate(*given).values

    def within(table):
        columns = zip(table.T, measured.values.T, strict=True)
        return np.mean([spearmanr(ours, truth).statistic for ours, truth in columns])

    of_blocks, added = cases.BLOCK_SCORES[name]
    block = np.array([layer.block for layer in tiny_space.layers])
    losses = np.bincount(block, measured.values.sum(axis=1))
    scores = [(scored / plain)[block == index, 0].mean() for index in range(len(losses))]
    assert spearmanr(scores, losses).statistic == pytest.approx(of_blocks)
    assert within(scored) - within(plain) == pytest.approx(added, abs=0.02)
    assert within(plain) == pytest.approx(-0.14, abs=0.02)


def test_salience_by_its_definition(made, tiny_llama, tiny_tokens):
    make, name, error, _ = made
    inputs, _ = seen_by(tiny_llama, tiny_llama.get_submodule(name), tiny_tokens[:3])
    gram = inputs.double().T @ inputs.double() / len(inputs)
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(len(gram))
    weight = get_weight(tiny_llama, name).double()
    salient = weight.square() / torch.linalg.inv(damped).diagonal().square()
    expected = sum(
        float(s.mean() * e.square().sum())
        for s, e in zip(salient.split(32, dim=1), error.double().split(32, dim=1), strict=True)
    )
    assert make("salience", group_size=32) == pytest.approx(expected, rel=1e-3)


def test_salience_of_a_layer_that_no_token_reached_is_zero():
    weight, gram = torch.ones(4, 6), torch.zeros(6, 6)
    assert Salience(group_size=4).entries(weight, gram, [weight]) == [0.0]


@pytest.mark.parametrize(
    ("name", "params"),
    [("salience", {"damping": 0.0}), ("zscore_density", {"threshold": -1.0})],
)
def test_refuses_parameters_out_of_range(name, params):
    with pytest.raises(InvalidArgument, match="give"):
        ESTIMATORS.build(name, params)
