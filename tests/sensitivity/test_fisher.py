"""Fisher: squared gradients of single sequences, whatever the passes, without storing them."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from bitfront.errors import InvalidArgument
from bitfront.models import gradients
from bitfront.models.layers import get_weight
from bitfront.sensitivity.fisher import Fisher


def weight_gradient(model, name, sequence):
    """Gradient of a sequence's summed loss, by autograd on the weight itself."""
    weight = model.get_submodule(name).weight
    loss = cross_entropy(model(sequence[None]).logits[0, :-1], sequence[1:], reduction="sum")
    return torch.autograd.grad(loss, weight)[0]


def test_entry_is_half_the_mean_square_of_sequence_gradients_times_error(
    tiny_llama, tiny_tokens, tiny_space, tiny_bank
):
    tokens = tiny_tokens[:3]
    table = Fisher(labels="text").estimate(tiny_llama, tokens, tiny_space, tiny_bank)
    for row in (0, 5, len(tiny_space.layers) - 1):
        name = tiny_space.layers[row].name
        for column, format in enumerate(tiny_space.formats):
            error = tiny_bank.weight(name, format.name) - get_weight(tiny_llama, name)
            squares = [
                (weight_gradient(tiny_llama, name, s) * error).square().sum() for s in tokens
            ]
            expected = float(sum(squares)) / (2 * tokens[:, 1:].numel())
            assert table.values[row, column] == pytest.approx(expected, rel=1e-4)


def test_values_do_not_depend_on_how_passes_are_cut(
    tiny_llama, tiny_tokens, tiny_space, tiny_bank, monkeypatch
):
    tables = []
    for tokens_per_pass in (128, 512):
        monkeypatch.setattr(gradients, "TOKENS_PER_PASS", tokens_per_pass)
        estimator = Fisher(n_draws=2, seed=3)
        tables.append(estimator.estimate(tiny_llama, tiny_tokens[:4], tiny_space, tiny_bank))
    np.testing.assert_allclose(tables[0].values, tables[1].values, rtol=1e-4)


def test_entries_do_not_grow_with_the_number_of_sequences(
    tiny_llama, tiny_tokens, tiny_space, tiny_bank
):
    few, many = (
        Fisher().estimate(tiny_llama, tiny_tokens[:n], tiny_space, tiny_bank).values.sum()
        for n in (4, 16)
    )
    assert 0.5 < many / few < 2


def test_drawn_labels_follow_the_seed(tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    first, again, other = (
        Fisher(seed=seed).estimate(tiny_llama, tiny_tokens[:2], tiny_space, tiny_bank).values
        for seed in (0, 0, 1)
    )
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    "fields", [{"labels": "both"}, {"n_draws": 0}, {"labels": "text", "n_draws": 2}]
)
def test_refuses_labels_it_cannot_draw(fields):
    with pytest.raises(InvalidArgument, match="use"):
        Fisher(**fields)
