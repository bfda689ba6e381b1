"""Every estimator on a convolutional model with depthwise kernels and a dead channel."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from bitfront.formats import named
from bitfront.models.bank import WeightBank
from bitfront.models.layers import search_space
from bitfront.models.own_images import distilled_images
from bitfront.quantizers.rtn import Rtn
from bitfront.sensitivity import ESTIMATORS
from bitfront.sensitivity.leave_one_in import LeaveOneIn
from tests.sensitivity.test_contract import assert_untouched, quick, snapshot

NAMES = sorted(set(ESTIMATORS.names()) - {"kv_norms"})
DEPTHWISE = "efficientnet.encoder.blocks.1.depthwise_conv.depthwise_conv"
MENU = tuple(map(named, ("int2_channel", "int3_channel", "int4_channel")))


@pytest.fixture(scope="module")
def dead(tiny_convnet):
    """A model one of whose depthwise kernels is zero, and reads zeros."""
    model = copy.deepcopy(tiny_convnet)
    block = model.efficientnet.encoder.blocks[1]
    with torch.no_grad():
        block.depthwise_conv.depthwise_conv.weight[3] = 0
        block.expansion.expand_conv.weight[3] = 0
        block.expansion.expand_bn.bias[3] = block.expansion.expand_bn.running_mean[3] = 0
    return model


@pytest.fixture(scope="module")
def bank_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank")

    def make(model):
        space = search_space(model, MENU, named("int8_channel"), tied=False)
        return space, WeightBank.build(folder, model, space, Rtn(clip_steps=2))

    return make


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_finite_where_a_channel_is_dead(name, dead, digit_pixels, bank_of):
    space, bank = bank_of(dead)
    before = snapshot(dead)
    table = quick(name).estimate(dead, digit_pixels[:4], space, bank)
    assert_untouched(dead, before)
    assert np.isfinite(table.values).all()
    row = [x.name for x in space.layers].index(DEPTHWISE)
    assert (table.values[row] != 0).all()


@pytest.fixture(scope="module")
def truth(tiny_convnet, digit_pixels, bank_of):
    space, bank = bank_of(tiny_convnet)
    measured = LeaveOneIn(max_sequences=24).estimate(tiny_convnet, digit_pixels[:24], space, bank)
    return space, bank, measured.values


@pytest.mark.parametrize(("name", "at_least"), [("fisher", 0.9), ("fisher_directional", 0.9)])
def test_gradients_rank_convolutions_as_measured(name, at_least, tiny_convnet, digit_pixels, truth):
    space, bank, measured = truth
    unseen = digit_pixels[64:128]
    values = ESTIMATORS.build(name).estimate(tiny_convnet, unseen, space, bank).values
    assert spearmanr(values.ravel(), measured.ravel()).statistic >= at_least


@pytest.fixture
def rank(tiny_convnet, digit_pixels, truth, monkeypatch):
    """Correlation of an estimator on 4 images of the model's own with the measured truth."""
    quick_images = partial(distilled_images, n_steps=30)
    monkeypatch.setattr("bitfront.models.own_text.distilled_images", quick_images)
    space, bank, measured = truth
    shape_alone = torch.zeros_like(digit_pixels[:4])

    def correlation(name, text):
        estimator = ESTIMATORS.build(name, {"max_sequences": 4, "text": text})
        values = estimator.estimate(tiny_convnet, shape_alone, space, bank).values
        return spearmanr(values.ravel(), measured.ravel()).statistic

    return correlation


def test_distilled_images_rank_better_than_noise(rank):
    """The claim of ZeroQ."""
    distilled = rank("leave_one_in", "distilled")
    assert distilled >= 0.92
    assert distilled >= rank("leave_one_in", "random") + 0.02


def test_linearity_ranks_on_distilled_images(rank):
    """Not surely better than on noise: it ranks no better on real images either."""
    assert rank("linearity", "distilled") >= 0.88
