"""Hessian-vector products and top eigenvalues against the exact Hessian of a small layer."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from bitfront.formats import named
from bitfront.models.curvature import hessian_products, top_eigenvalues
from bitfront.models.layers import search_space
from tests.models.test_layers import OUTSIDE, build


@pytest.fixture(scope="module")
def space(tiny_llama):
    return search_space(tiny_llama, (named("int4_g64"),), None, tied=False)


def exact_hessian(model, name, sequence):
    """Of the mean loss in 48 weights of a layer, by autograd twice."""
    weight = model.get_submodule(name).weight
    original = weight.detach().clone()

    def loss(part):
        moved = original.clone()
        moved[0, :48] = part
        logits = torch.func.functional_call(model, {f"{name}.weight": moved}, (sequence[None],))
        return cross_entropy(logits.logits[0, :-1], sequence[1:])

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.autograd.functional.hessian(loss, original[0, :48])


def test_a_product_is_that_of_the_exact_hessian(tiny_llama, tiny_tokens, space):
    name, sequence = space.layers[-1].name, tiny_tokens[0, :24]
    vector = torch.zeros(space.layers[-1].shape)
    vector[0, :48] = torch.randn(48, generator=torch.Generator().manual_seed(0))
    (product,) = hessian_products(tiny_llama, sequence, [name], [vector])
    expected = exact_hessian(tiny_llama, name, sequence) @ vector[0, :48]
    torch.testing.assert_close(product[0, :48], expected, rtol=1e-3, atol=1e-6)


def test_alone_a_layer_converges_and_its_error_is_reported(tiny_llama, tiny_tokens, space):
    """No vector has a larger quotient than the top eigenvector's."""
    one = type(space)(space.layers[8:10], space.formats)
    given = (tiny_llama, tiny_tokens[:3, :32], one)
    few, many = (top_eigenvalues(*given, n, 1, 0).mean for n in (3, 24))
    more = top_eigenvalues(*given, 32, 1, 7)
    assert (few <= many * 1.01).all()
    np.testing.assert_allclose(more.mean, many, rtol=0.05)  # another start, the same value
    assert (more.standard_error > 0).all()


def test_more_sequences_give_smaller_errors(tiny_llama, tiny_tokens, space):
    one = type(space)(space.layers[:8], space.formats)
    few, many = (top_eigenvalues(tiny_llama, tiny_tokens[:n, :32], one, 3, 2, 0) for n in (2, 16))
    assert np.median(many.standard_error) < np.median(few.standard_error)


@pytest.mark.parametrize("architecture", OUTSIDE)
def test_weights_that_are_kept_transposed_are_turned(architecture):
    model = build(architecture)
    layers = search_space(model, (named("int4_channel"),), None, tied=False).layers
    vectors = [torch.ones(layer.shape) for layer in layers]
    sequence = torch.arange(3, 20)
    products = hessian_products(model, sequence, [x.name for x in layers], vectors)
    assert [tuple(p.shape) for p in products] == [x.shape for x in layers]
