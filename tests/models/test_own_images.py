"""Images without data: noise, and noise that batch norms take for what they were trained on."""

import copy
from functools import partial

import pytest
import torch

from bitfront.errors import InvalidArgument, NonFinite
from bitfront.models.own_images import distances, distilled_images, random_images
from bitfront.models.own_text import chosen_text
from bitfront.sensitivity import ESTIMATORS
from tests.models.test_convolutions import resnet
from tests.sensitivity.test_contract import assert_untouched, snapshot

SHAPE = torch.Size((4, 3, 32, 32))


def distance(model, images):
    with torch.no_grad():
        return distances(model, images).mean().item()


@pytest.fixture(scope="module")
def distilled(tiny_convnet):
    return distilled_images(tiny_convnet, SHAPE, seed=0, n_steps=40)


def test_distilled_images_come_near_the_statistics_of_real_ones(
    tiny_convnet, digit_pixels, distilled
):
    noise = distance(tiny_convnet, random_images(tiny_convnet, SHAPE, 0))
    assert distance(tiny_convnet, distilled) < 0.4 * noise  # 0.31 after 40 steps, 0.1 after 100
    assert distance(tiny_convnet, digit_pixels[:64]) < 0.05 * noise
    assert distilled.shape == SHAPE
    assert not distilled.requires_grad


def test_a_distance_is_in_units_of_what_a_norm_remembers():
    """0 on the very images that the statistics are of, 1 where means are a deviation away."""
    model = resnet()
    norms = [x for x in model.modules() if isinstance(x, torch.nn.BatchNorm2d)]
    images = torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
        model.train()(images)
        model.eval()
        found = distances(model, images)
        assert len(found) == len(norms)
        assert found.max() < 1e-2
        norms[0].running_mean += (norms[0].running_var + norms[0].eps).sqrt()
        assert distances(model, images)[0].item() == pytest.approx(1, abs=1e-3)


def test_the_seed_alone_decides_and_the_model_stays_as_it_was(tiny_convnet):
    """Also one that is being trained."""
    model = copy.deepcopy(tiny_convnet).train()
    before, state = snapshot(model), torch.get_rng_state()
    first, again, other = (distilled_images(model, SHAPE, seed, 1) for seed in (0, 0, 1))
    random_images(model, SHAPE, 0)
    assert_untouched(model, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_noise_has_the_scale_of_the_model_s_pixels(tiny_convnet):
    """A kernel that divides by 64 is one for pixels 64 times as large."""
    model = copy.deepcopy(tiny_convnet)
    with torch.no_grad():
        model.efficientnet.embeddings.convolution.weight /= 64
    of_small, of_large = (random_images(x, SHAPE, 0) for x in (tiny_convnet, model))
    assert torch.equal(of_large, 64 * of_small)


def test_many_images_are_distilled_some_at_a_time(tiny_convnet, monkeypatch):
    monkeypatch.setattr("bitfront.models.own_images.TOGETHER", 2)
    sizes = []
    hook = tiny_convnet.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    try:
        made = distilled_images(tiny_convnet, torch.Size((5, 3, 32, 32)), 0, 1)
    finally:
        hook.remove()
    assert len(made) == 5
    assert max(sizes) == 2


def test_images_are_distilled_once(tiny_convnet, digit_pixels, monkeypatch):
    quick = partial(distilled_images, n_steps=1)
    monkeypatch.setattr("bitfront.models.own_text.distilled_images", quick)
    given = ("distilled", tiny_convnet, digit_pixels[:1], 5)
    assert chosen_text(*given) is chosen_text(*given)


def test_estimators_are_called_as_studies_know_them():
    """A results folder names its estimator by this and refuses another."""
    assert repr(ESTIMATORS.build("leave_one_in")) == (
        "LeaveOneIn(max_sequences=8, text='calibration', seed=0)"
    )


def test_what_cannot_be_distilled_is_refused(tiny_convnet):
    with pytest.raises(InvalidArgument, match="take 'calibration', 'random' or"):
        chosen_text("sampled", tiny_convnet, torch.zeros(SHAPE), 0)
    model = copy.deepcopy(tiny_convnet)
    with torch.no_grad():
        model.efficientnet.embeddings.convolution.weight[0] = torch.nan
    with pytest.raises(NonFinite, match="check the weights"):
        distilled_images(model, SHAPE, 0, 1)
