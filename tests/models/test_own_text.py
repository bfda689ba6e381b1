"""Text without data: drawn from the vocabulary, or written by the model."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.models.bank import WeightBank
from bitfront.models.layers import search_space
from bitfront.models.own_text import chosen_text, random_tokens, sampled_tokens
from bitfront.quantizers.rtn import Rtn
from bitfront.sensitivity import ESTIMATORS
from bitfront.sensitivity.leave_one_in import LeaveOneIn


def loss(model, tokens):
    with torch.no_grad():
        return model(tokens, labels=tokens).loss.item()


def test_sampled_text_is_what_the_model_expects(tiny_llama):
    """Its loss is the model's own entropy, far below that of random tokens."""
    written = sampled_tokens(tiny_llama, 8, 64, seed=0)
    drawn = random_tokens(tiny_llama, 8, 64, seed=0)
    assert written.shape == drawn.shape == (8, 64)
    assert loss(tiny_llama, written) < 0.6 * loss(tiny_llama, drawn)


@pytest.mark.parametrize("draw", [random_tokens, sampled_tokens])
def test_text_follows_the_seed_alone(draw, tiny_llama):
    first, again, other = (draw(tiny_llama, 2, 24, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_cache_changes_nothing(tiny_llama, monkeypatch):
    expected = sampled_tokens(tiny_llama, 2, 20, seed=3)
    forward = type(tiny_llama).forward

    def without(self, tokens, past_key_values=None, use_cache=None):
        return forward(self, tokens, use_cache=False)

    monkeypatch.setattr(type(tiny_llama), "forward", without)
    assert torch.equal(sampled_tokens(tiny_llama, 2, 20, seed=3), expected)


def test_a_model_writes_its_text_once(tiny_llama, tiny_tokens, monkeypatch):
    given = (tiny_llama, tiny_tokens[:1, :16], 5)
    first = chosen_text("sampled", *given)
    monkeypatch.setattr("bitfront.models.own_text.sampled_tokens", lambda *_: pytest.fail("again"))
    assert torch.equal(chosen_text("sampled", *given), first)


@pytest.fixture(scope="module")
def bank(tiny_llama, tmp_path_factory):
    menu = tuple(map(named, ("int2_g64", "int4_g64")))
    space = search_space(tiny_llama, menu, None, tied=False)
    return WeightBank.build(tmp_path_factory.mktemp("bank"), tiny_llama, space, Rtn())


@pytest.fixture(scope="module")
def truth(tiny_llama, tiny_tokens, bank):
    measured = LeaveOneIn(max_sequences=4)
    return measured.estimate(tiny_llama, tiny_tokens[8:12], bank.space, bank)


@pytest.mark.parametrize("name", ["linearity", "leave_one_in"])
@pytest.mark.parametrize(("text", "least"), [("random", 0.91), ("sampled", 0.95)])
def test_estimates_without_data_rank_as_measured_on_text(
    name, text, least, tiny_llama, tiny_tokens, bank, truth
):
    estimator = ESTIMATORS.build(name, {"text": text, "max_sequences": 4})
    first, other = (
        estimator.estimate(tiny_llama, tokens, bank.space, bank)
        for tokens in (tiny_tokens[:4], tiny_tokens[4:8])
    )
    np.testing.assert_array_equal(first.values, other.values)
    assert first.source == other.source
    assert spearmanr(first.values.ravel(), truth.values.ravel()).statistic > least


def test_unknown_texts_are_refused(tiny_llama, tiny_tokens):
    assert chosen_text("calibration", tiny_llama, tiny_tokens, 0) is tiny_tokens
    with pytest.raises(InvalidArgument, match="random, sampled"):
        ESTIMATORS.build("linearity", {"text": "none"})
    with pytest.raises(InvalidArgument, match="take 'sampled'"):
        chosen_text("distilled", tiny_llama, tiny_tokens, 0)
