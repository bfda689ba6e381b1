"""Combined estimators: fits and ranks by their definitions, formulas read back and evolved."""

import re

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from bitfront.errors import InvalidArgument, NonFinite, UnknownPlugin
from bitfront.sensitivity import ESTIMATORS
from bitfront.sensitivity._expressions import Formula, evolved
from bitfront.sensitivity._measured import drawn, measured, sums
from bitfront.sensitivity.blend import Blend, by_rank, fitted
from bitfront.sensitivity.evolved import _NAMES, Evolved


def test_a_fit_finds_the_weights_of_what_was_measured():
    rng = np.random.default_rng(0)
    predicted = [rng.lognormal(0, 1, 20) for _ in range(3)]
    kl = 2.0 * predicted[0] + 0.5 * predicted[2]
    np.testing.assert_allclose(fitted(predicted, kl), [2.0, 0.0, 0.5], atol=1e-8)


def test_a_fit_to_nothing_weighs_all_the_same():
    assert fitted([np.zeros(4), np.zeros(4)], np.zeros(4)).tolist() == [0.5, 0.5]


def test_ranks_keep_the_values_of_the_first_table():
    first, second = np.array([[1.0, 4.0], [9.0, 2.0]]), np.array([[1.0, 5.0], [3.0, 2.0]])
    blended = by_rank([first, second])
    assert sorted(blended.ravel()) == sorted(first.ravel())
    assert blended.ravel().argsort().tolist() == [0, 3, 1, 2]


def test_a_fitted_blend_is_in_nats(tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    """It predicts the KL of allocations that it was not fitted to within a factor."""
    table = Blend(estimators="output_error+layer_influence").estimate(
        tiny_llama, tiny_tokens[:4], tiny_space, tiny_bank
    )
    choices = drawn(tiny_space, 10, seed=9)
    kl = measured(tiny_llama, tiny_tokens[8:10], tiny_space, tiny_bank, choices)
    ratio = sums(table.values, choices) / kl
    assert 0.4 < np.median(ratio) < 2.5
    assert table.quantity == "kl"


def test_outputs_that_overflow_are_refused(tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    class Overflowing:
        """The bank, with one layer whose quantized weight is beyond all bounds."""

        space = tiny_space

        def weight(self, layer, format, device=None):
            weight = tiny_bank.weight(layer, format)
            return weight * torch.inf if layer == tiny_space.layers[3].name else weight

    choices = drawn(tiny_space, 2, seed=0)
    with pytest.raises(NonFinite, match="overflows"):
        measured(tiny_llama, tiny_tokens[:1], tiny_space, Overflowing(), choices)


@pytest.mark.parametrize("text", ["fisher", "a*b^-1", "a^0.5 + b*c^2"])
def test_formulas_are_read_back(text):
    assert str(Formula.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "fisher**2", "__import__('os')", "a^x", "log(a)", "a^1.2.3", "a^."]
)
def test_what_is_no_formula_is_refused(text):
    with pytest.raises(InvalidArgument, match="Cannot read formula"):
        Formula.parse(text)


def test_evolution_finds_a_hidden_formula():
    rng = np.random.default_rng(0)
    logs = {name: rng.normal(size=(5, 4)) for name in ("a", "b", "c", "d")}
    hidden = Formula.parse("a*c^-0.5").values(logs)

    def fitness(formula):
        return float(kendalltau(formula.values(logs).ravel(), hidden.ravel()).statistic)

    found = evolved(tuple(logs), fitness, 30, 15, np.random.default_rng(1))
    assert fitness(found) > 0.9 > max(fitness(Formula((((name, 1.0),),))) for name in logs)


def test_formulas_are_finite_whatever_the_statistics():
    logs = {"a": np.array([[-700.0, 700.0]]), "b": np.array([[0.0, -700.0]])}
    assert np.isfinite(Formula.parse("a^2*b^-2 + b").values(logs)).all()


def test_the_note_states_the_formula_and_its_tau_and_it_can_be_given(
    tiny_llama, tiny_tokens, tiny_space, tiny_bank
):
    given = (tiny_llama, tiny_tokens[:4], tiny_space, tiny_bank)
    small = {"n_measured": 9, "population": 8, "n_generations": 3}
    table = Evolved(**small).estimate(*given)
    assert "cross-validated" in table.note
    formula = table.note.removeprefix("formula ").partition(":")[0]
    again = Evolved(formula=formula).estimate(*given)
    np.testing.assert_allclose(again.values, table.values)


def test_where_nothing_loses_anything_no_formula_turns_the_order_round(
    tiny_llama, tiny_tokens, tiny_space, tiny_bank, monkeypatch
):
    """A norm of zeros before the head: every allocation predicts the same."""
    given = (tiny_llama, tiny_tokens[:2, :32], tiny_space, tiny_bank)
    small = {"n_measured": 6, "population": 8, "n_generations": 2}
    monkeypatch.setattr(tiny_llama.model.norm, "forward", lambda states: states * 0)
    table = Evolved(**small).estimate(*given)
    assert table.note.startswith("formula fisher_directional")
    assert (table.values[:, 0] >= table.values[:, -1]).all()


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("blend", {"estimators": "blend+fisher"}, "join other names"),
        ("blend", {"estimators": "taylor"}, "below zero"),
        ("blend", {"by": "vote"}, "fit"),
        ("evolved", {"formula": "fishr"}, "Available: "),
        ("evolved", {"n_measured": 2}, "n_measured >= 6"),
        ("by_part", {"language": "by_part"}, "name another"),
    ],
)
def test_refuses_what_cannot_be_combined(name, params, message):
    with pytest.raises(InvalidArgument, match=message):
        ESTIMATORS.build(name, params)


def test_a_blend_by_rank_is_not_in_nats():
    """So that it is not weighed against caches and rounded inputs, which are."""
    ranks, fit = Blend(by="rank"), Blend(by="fit")
    assert fit.in_nats
    assert not ranks.in_nats
    for check in (ranks.check_caches, ranks.check_inputs):
        with pytest.raises(InvalidArgument, match="only ranks weights"):
            check()


def test_folds_without_an_order_do_not_enter_the_cross_validated_tau():
    """Four of six allocations lose the same: at least one fold of two ranks nothing."""
    rng = np.random.default_rng(0)
    logs = {name: np.log(rng.lognormal(size=(10, 3))) for name in _NAMES}
    choices, kl = rng.integers(0, 3, (6, 10)), np.array([0.5, 0.5, 0.5, 0.5, 0.1, 0.2])
    for seed in range(3):
        search = Evolved(n_measured=6, seed=seed, population=8, n_generations=2)
        _, note = search.found(logs, choices, kl)
        tau, n_folds = re.search(r"(\S+) cross-validated over (\d) of 3 folds", note).groups()
        assert -1 <= float(tau) <= 1
        assert int(n_folds) in {1, 2}


@pytest.mark.parametrize("part", ["vision", "projector", "language"])
def test_an_unknown_estimator_of_a_part_is_refused_at_once(part):
    with pytest.raises(UnknownPlugin, match="Did you mean 'fisher'"):
        ESTIMATORS.build("by_part", {part: "fishr"})
