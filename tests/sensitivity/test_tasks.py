"""What every estimator promises on a ViT and on a sentence encoder."""

import cases
import numpy as np
import pytest
from scipy.stats import spearmanr

from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.models.bank import WeightBank
from bitfront.models.layers import search_space
from bitfront.quantizers.rtn import Rtn
from bitfront.sensitivity import ESTIMATORS
from bitfront.sensitivity.leave_one_in import LeaveOneIn
from tests.sensitivity.test_contract import assert_untouched, quick, snapshot

MENU = ("int2_g32", "int3_g32", "int4_g32")
TASKS = ("images", "sentences")


class Setting:
    """A model with its samples, space, bank, and the truth measured on other samples."""

    def __init__(self, model, samples, folder):
        self.model = model
        self.samples = samples[:16]
        menu = tuple(map(named, MENU))
        self.space = search_space(model, menu, named("int8_g32"), tied=False)
        self.bank = WeightBank.build(folder, model, self.space, Rtn())
        self.truth = self.estimate(LeaveOneIn(max_sequences=24), samples[16:])

    def estimate(self, estimator, samples=None):
        samples = self.samples if samples is None else samples
        return estimator.estimate(self.model, samples, self.space, self.bank).values


@pytest.fixture(scope="module", params=TASKS)
def setting(request, tmp_path_factory, tiny_vit, unseen_digits, tiny_bert, sentences):
    folder = tmp_path_factory.mktemp("bank")
    if request.param == "images":
        return Setting(tiny_vit, unseen_digits[0][:40], folder)
    return Setting(tiny_bert, sentences, folder)


@pytest.mark.parametrize("name", ESTIMATORS.names())
def test_tables_are_finite_repeat_and_leave_the_model_as_it_was(name, setting):
    before = snapshot(setting.model)
    values = setting.estimate(quick(name))
    assert_untouched(setting.model, before)
    assert np.isfinite(values).all()
    assert (values[:, 0] != 0).any()
    np.testing.assert_array_equal(setting.estimate(quick(name)), values)


@pytest.mark.parametrize("name", cases.ESTIMATORS_OF_TASKS)
def test_ranks_entries_as_measured(name, setting):
    """The claim, on samples that the measured truth has not seen."""
    claims = dict(zip(TASKS, cases.ESTIMATORS_OF_TASKS[name], strict=True))
    claim = claims["images" if setting.samples.is_floating_point() else "sentences"]
    values = setting.estimate(ESTIMATORS.build(name))
    assert spearmanr(values.ravel(), setting.truth.ravel()).statistic >= claim


def test_the_estimate_of_small_errors_is_the_cosine_error(tiny_bert, sentences, tmp_path):
    """No factor is lost: half of J^T J times squared errors, averaged over directions."""
    menu = (named("int8_g32"),)
    space = search_space(tiny_bert, menu, None, tied=False)
    bank = WeightBank.build(tmp_path, tiny_bert, space, Rtn(clip_steps=0))
    given = (tiny_bert, sentences[:12], space, bank)
    estimated = ESTIMATORS.build("fisher", {"n_draws": 24}).estimate(*given).values
    measured = LeaveOneIn(max_sequences=12).estimate(*given).values
    assert estimated.sum() == pytest.approx(measured.sum(), rel=0.25)


def test_labels_of_sentences_are_refused(setting):
    if setting.samples.is_floating_point():
        assert setting.estimate(ESTIMATORS.build("fisher", {"labels": "text"})).min() >= 0
    else:
        with pytest.raises(InvalidArgument, match="Sentences have no labels"):
            setting.estimate(ESTIMATORS.build("fisher", {"labels": "text"}))


def test_samples_without_data_are_refused(setting):
    for text in ("random", "sampled"):
        with pytest.raises(InvalidArgument, match="language models"):
            setting.estimate(LeaveOneIn(text=text))
