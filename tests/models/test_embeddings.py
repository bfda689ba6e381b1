"""Embeddings: the cosine error, its gradient, and labels drawn around the unquantized model's."""

import pytest
import torch

from bitfront.errors import MismatchedArtifact
from bitfront.models.embeddings import EmbeddingLabelLoss, Embeddings, answers_of
from bitfront.models.reference import Reference


@pytest.fixture
def reference(tiny_bert, sentences):
    return answers_of(tiny_bert, sentences[:4])


def test_cosine_error_is_one_minus_the_cosine(reference):
    assert isinstance(reference, Embeddings)
    other = torch.nn.functional.normalize(torch.randn(1, 64), dim=-1)
    expected = 1 - float(other[0] @ reference.vectors[2])
    assert float(reference.divergence(other, 2)) == pytest.approx(expected, abs=1e-6)
    assert float(reference.divergence(reference.vectors[2:3], 2)) == 0


def test_the_gradient_is_that_of_one_minus_the_cosine(reference):
    states = torch.randn(4, 1, 64, requires_grad=True)
    outputs = torch.nn.functional.normalize(states, dim=-1)
    cosines = (outputs[:, 0] * reference.vectors).sum(dim=-1)
    (expected,) = torch.autograd.grad((1 - cosines).sum(), states, retain_graph=True)
    given = reference.gradient(outputs.detach(), slice(0, 4))
    (found,) = torch.autograd.grad(outputs, states, given)
    torch.testing.assert_close(found, expected)


def test_drawn_gradients_have_the_hessian_as_covariance():
    """Of 1 - cos(v, v0) in v at v0, with a v0 that is not of length 1."""
    v0 = torch.tensor([0.5, -2.0, 1.0, 0.3])
    unit = v0 / v0.norm()
    hessian = (torch.eye(4) - torch.outer(unit, unit)) / v0.norm() ** 2
    states = v0.expand(4000, 1, 4).clone().requires_grad_()
    outputs = torch.nn.functional.normalize(states, dim=-1)
    drawn = EmbeddingLabelLoss(seed=0)(outputs.detach(), slice(0, 4000), 0)
    (gradients,) = torch.autograd.grad(outputs, states, drawn)
    covariance = gradients[:, 0].T @ gradients[:, 0] / 4000
    torch.testing.assert_close(covariance, hessian, atol=0.012, rtol=0)


def test_draws_do_not_depend_on_how_passes_are_cut():
    loss, outputs = EmbeddingLabelLoss(seed=3), torch.zeros(5, 1, 8)
    whole = loss(outputs, slice(0, 5), 1)
    assert torch.equal(loss(outputs[2:4], slice(2, 4), 1), whole[2:4])
    assert not torch.equal(loss(outputs, slice(0, 5), 0), whole)


def test_what_is_stored_comes_back(reference, tmp_path):
    path = tmp_path / "reference.safetensors"
    reference.save(path, "model")
    again = Embeddings.load(path, "model", reference.tokens)
    assert torch.equal(again.vectors, reference.vectors)
    assert len(again.first(2).vectors) == 2
    with pytest.raises(MismatchedArtifact, match="another model or text"):
        Embeddings.load(path, "other", reference.tokens)
    with pytest.raises(MismatchedArtifact):
        Reference.load(path, "other", reference.tokens)
