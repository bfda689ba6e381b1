"""Losses: drawn labels follow the prediction, and the KL gradient is that of `Reference.kl`."""

from types import SimpleNamespace

import pytest
import torch

from bitfront.models.losses import KlLoss, LabelLoss
from bitfront.models.reference import Reference


def model_of(logits):
    """A model that predicts `logits [length, vocabulary]` whatever it is given."""
    model = torch.nn.Linear(1, 1)
    model.forward = lambda *_, **__: SimpleNamespace(logits=logits[None])
    return model


def test_drawn_labels_follow_the_prediction():
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.2])
    logits = probabilities.log().clamp(min=-1e4).expand(1, 20_001, 4)
    tokens = torch.zeros(1, 20_001, dtype=torch.long)
    gradient = LabelLoss.of(tokens, "model", 1, 0)(logits, slice(0, 1), 0)[0, :-1]
    frequencies = (probabilities - gradient).mean(dim=0)
    torch.testing.assert_close(frequencies, probabilities, atol=0.01, rtol=0)


@pytest.mark.parametrize("labels", ["model", "text"])
def test_label_gradients_sum_to_zero_and_skip_the_last_position(labels):
    torch.manual_seed(0)
    tokens = torch.randint(0, 9, (2, 7))
    gradient = LabelLoss.of(tokens, labels, 1, 0)(torch.randn(2, 7, 9), slice(0, 2), 0)
    torch.testing.assert_close(gradient.sum(dim=-1), torch.zeros(2, 7), atol=1e-6, rtol=0)
    assert (gradient[:, -1] == 0).all()
    assert (gradient[:, :-1].min(dim=-1).values < 0).all()


@pytest.mark.parametrize("top_k", [3, 11])
def test_kl_gradient_is_that_of_the_kl_over_the_same_outcomes(top_k):
    torch.manual_seed(0)
    fp, quantized = (3 * torch.randn(6, 11) for _ in range(2))
    tokens = torch.zeros(1, 6, dtype=torch.long)
    reference = Reference.of(model_of(fp), tokens, top_k)
    found = KlLoss(reference)(quantized[None], slice(0, 1), 0)[0]
    step, direction = 1e-2, torch.randn(6, 11)
    ends = [reference.kl((quantized + s * direction)[:-1], 0).sum() for s in (step, -step)]
    slope = float(ends[0] - ends[1]) / (2 * step)
    assert float((found * direction).sum()) == pytest.approx(slope, rel=1e-3)
    assert (found[-1] == 0).all()


def test_kl_gradient_is_finite_when_the_tail_underflows():
    logits = torch.tensor([[200.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    tokens = torch.zeros(1, 2, dtype=torch.long)
    reference = Reference.of(model_of(torch.zeros(2, 3)), tokens, 1)
    assert KlLoss(reference)(logits[None], slice(0, 1), 0).isfinite().all()
