"""One pass for many estimators gives what each gives alone."""

import time

import numpy as np
import pytest

from bitfront.models.accumulators import Accumulator, accumulate
from bitfront.sensitivity import ESTIMATORS
from bitfront.sensitivity.base import GramEstimator, PassEstimator, estimate_together, shared_passes

SHARING = [
    name
    for name in ESTIMATORS.names()
    if issubclass(ESTIMATORS.load(name), (PassEstimator, GramEstimator))
]


def test_estimators_of_one_loss_share_a_pass_and_those_of_inputs_another():
    names = ("weight_error", "layer_influence", "fisher", "taylor", "fisher_output", "output_error")
    shared = shared_passes([ESTIMATORS.build(name) for name in names])
    kinds = [[type(x).__name__ for x in group] for group in shared]
    assert kinds == [
        ["WeightError"],
        ["LayerInfluence"],
        ["Fisher", "FisherOutput"],
        ["Taylor"],  # its labels are the text's
        ["OutputError"],
    ]


def test_estimators_of_inputs_need_no_loss():
    (shared,) = shared_passes(
        [ESTIMATORS.build(x) for x in ("layer_influence", "activation_aware")]
    )
    assert len(shared) == 2


@pytest.mark.parametrize("labels", ["model", "text"])
def test_tables_made_together_are_those_made_alone(
    labels, tiny_llama, tiny_tokens, tiny_space, tiny_bank
):
    given = (tiny_llama, tiny_tokens[:4, :64], tiny_space, tiny_bank)
    estimators = [
        ESTIMATORS.build(
            name, {"labels": labels} if hasattr(ESTIMATORS.load(name), "labels") else {}
        )
        for name in SHARING
    ]
    for group in shared_passes(estimators):
        together = estimate_together(group, *given)
        for estimator, made in zip(group, together, strict=True):
            alone = estimator.estimate(*given)
            np.testing.assert_allclose(made.table.values, alone.values, rtol=1e-5)
            assert made.table.source == alone.source
            assert made.seconds > 0


def test_several_draws_of_labels_do_not_change_what_inputs_say(
    tiny_llama, tiny_tokens, tiny_space, tiny_bank
):
    given = (tiny_llama, tiny_tokens[:2, :64], tiny_space, tiny_bank)
    riders = [ESTIMATORS.build(x) for x in ("activation_aware", "layer_influence")]
    group = [*riders, ESTIMATORS.build("fisher", {"n_draws": 3})]
    for estimator, made in zip(riders, estimate_together(group, *given), strict=False):
        alone = estimator.estimate(*given)
        np.testing.assert_allclose(made.table.values, alone.values, rtol=1e-6)


class Late(Accumulator):
    """All of its work comes after the pass."""

    def values(self, n_scored):
        time.sleep(0.3)
        return np.zeros((1, 1))


class Early(Accumulator):
    def values(self, n_scored):
        return np.zeros((1, 1))


def test_seconds_count_what_is_made_of_the_sums(tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    given = (tiny_llama, tiny_tokens[:1, :8], tiny_space, tiny_bank, [Early(), Late()], None)
    _, (early, late) = accumulate(*given)
    assert late - early > 0.25
