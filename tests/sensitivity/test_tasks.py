"""What every estimator promises on a ViT and on a sentence encoder."""

from dataclasses import replace
from functools import cached_property, partial

import cases
import numpy as np
import pytest
from scipy.stats import spearmanr

from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.models.bank import WeightBank
from bitfront.models.layers import search_space
from bitfront.models.own_text import chosen_text
from bitfront.quantizers.rtn import Rtn
from bitfront.sensitivity import ESTIMATORS
from bitfront.sensitivity.leave_one_in import LeaveOneIn
from tests.sensitivity.test_contract import assert_untouched, quick, snapshot

MENU = ("int2_g32", "int3_g32", "int4_g32")
TASKS = ("images", "sentences")


NO_LABELS = {"taylor"}
"""Estimators that want labels of the samples, which sentences have none of."""


class Setting:
    """A model with its samples, space and bank."""

    def __init__(self, model, samples, folder):
        self.model, self.samples = model, samples
        menu = tuple(map(named, MENU))
        self.space = search_space(model, menu, named("int8_g32"), tied=False)
        self.bank = WeightBank.build(folder, model, self.space, Rtn(clip_steps=0))

    def estimate(self, estimator, rows, space=None):
        space = space or self.space
        return estimator.estimate(self.model, self.samples[rows], space, self.bank).values

    @property
    def is_of_images(self):
        return self.samples.is_floating_point()

    @cached_property
    def truth(self):
        """Measured on other samples than the first 24."""
        return self.estimate(LeaveOneIn(max_sequences=16), slice(24, 40))

    @property
    def small(self):
        """Two layers of two blocks and two formats: contracts do not need all entries."""
        kinds = ("q_proj", "query", "fc2", "output.dense")
        rows = [x for x in self.space.layers if x.block in (0, 2) and x.kind.endswith(kinds)]
        return replace(self.space, layers=tuple(rows), formats=self.space.formats[:2])


@pytest.fixture(scope="module", params=TASKS)
def setting(request, tmp_path_factory, tiny_vit, unseen_digits, tiny_bert, sentences):
    folder = tmp_path_factory.mktemp("bank")
    if request.param == "images":
        return Setting(tiny_vit, unseen_digits[0][:40], folder)
    return Setting(tiny_bert, sentences, folder)


@pytest.mark.parametrize("name", ESTIMATORS.names())
def test_tables_are_finite_repeat_and_leave_the_model_as_it_was(name, setting):
    before = snapshot(setting.model)
    made = partial(setting.estimate, quick(name), slice(0, 4), setting.small)
    if name in NO_LABELS and not setting.is_of_images:
        with pytest.raises(InvalidArgument, match="Sentences have no labels"):
            made()
        return
    values = made()
    assert_untouched(setting.model, before)
    assert np.isfinite(values).all()
    assert (values[:, 0] != 0).any()
    np.testing.assert_array_equal(made(), values)


@pytest.mark.parametrize("name", cases.ESTIMATORS_OF_TASKS)
def test_ranks_entries_as_measured(name, setting):
    """The claim, on samples that the measured truth has not seen."""
    claim = cases.ESTIMATORS_OF_TASKS[name][not setting.is_of_images]
    values = setting.estimate(ESTIMATORS.build(name), slice(0, 24))
    assert spearmanr(values.ravel(), setting.truth.ravel()).statistic >= claim


def test_the_estimate_of_small_errors_is_the_cosine_error(tiny_bert, sentences, tmp_path):
    """No factor is lost: half of J^T J times squared errors, averaged over directions."""
    menu = (named("int8_g32"),)
    space = search_space(tiny_bert, menu, None, tied=False)
    bank = WeightBank.build(tmp_path, tiny_bert, space, Rtn(clip_steps=0))
    given = (tiny_bert, sentences[:4], space, bank)
    estimated = ESTIMATORS.build("fisher", {"n_draws": 8}).estimate(*given).values
    measured = LeaveOneIn(max_sequences=4).estimate(*given).values
    assert estimated.sum() == pytest.approx(measured.sum(), rel=0.25)


def test_samples_that_a_task_cannot_make_are_refused(setting):
    """A ViT has noise, and no batch norm to distil from; sentences have neither."""
    for text in ("random", "sampled", "distilled"):
        if setting.is_of_images and text == "random":
            continue
        with pytest.raises(InvalidArgument, match="take 'calibration'"):
            setting.estimate(LeaveOneIn(text=text), slice(0, 2), setting.small)


def test_noise_stands_for_images(tiny_vit, unseen_digits):
    noise = chosen_text("random", tiny_vit, unseen_digits[0][:2], 0)
    assert noise.shape == unseen_digits[0][:2].shape
    assert noise.std().item() == pytest.approx(1, abs=0.05)
    with pytest.raises(InvalidArgument, match=r"needs batch norms .* 'random' noise"):
        chosen_text("distilled", tiny_vit, unseen_digits[0][:2], 0)
