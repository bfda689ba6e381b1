"""HessianTrace: exact curvature along its signs, honest standard errors, a stop that cannot lie."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from bitfront.errors import InvalidArgument
from bitfront.sensitivity import hessian_trace
from bitfront.sensitivity.hessian_trace import HessianTrace, Traces


def test_curvature_is_the_hessian_vector_product_of_all_layers(
    tiny_llama, tiny_tokens, tiny_space, monkeypatch
):
    tokens = tiny_tokens[0]
    weights = [tiny_llama.get_submodule(layer.name).weight for layer in tiny_space.layers]
    signs = [
        torch.from_numpy(hessian_trace._signs(layer.shape, (0, 0, row))).float()
        for row, layer in enumerate(tiny_space.layers)
    ]
    with sdpa_kernel(SDPBackend.MATH):
        loss = cross_entropy(tiny_llama(tokens[None]).logits[0, :-1], tokens[1:])
        slopes = torch.autograd.grad(loss, weights, create_graph=True)
        total = sum((g * v).sum() for g, v in zip(slopes, signs, strict=True))
        products = torch.autograd.grad(total, weights)
    expected = [float((hv * v).sum()) for hv, v in zip(products, signs, strict=True)]
    found = hessian_trace._curvatures(tiny_llama, tokens, tiny_space, (0, 0))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_signs_are_even_and_independent():
    first, second = (hessian_trace._signs((50, 333), (7, probe, 0)) for probe in (0, 1))
    assert set(np.unique(first)) == {-1, 1}
    assert abs(first.mean()) < 0.03
    assert abs((first * second).mean()) < 0.03


def test_standard_errors_cover_the_truth():
    # Trace 3 with noise of known size: about 95 % of intervals of two standard errors hold it.
    generator = np.random.default_rng(0)
    samples = [3 + generator.normal(size=500) for _ in range(32)]
    traces = Traces.of(samples)
    covered = np.abs(traces.mean - 3) <= 2 * traces.standard_error
    assert 0.9 < covered.mean() < 0.99


def test_falling_traces_do_not_stop_the_probes():
    # NNCF #2155 stopped when the signed change of the mean was below the tolerance.
    falling = Traces.of([np.array([100.0]), np.array([-50.0]), np.array([-200.0])])
    assert falling.relative_error > 0.1
    assert Traces.of([np.array([0.0]), np.array([0.0])]).relative_error == 0.0


def test_stops_between_the_smallest_and_the_largest_number_of_probes(
    tiny_llama, tiny_tokens, tiny_space
):
    loose = HessianTrace(min_probes=3, max_probes=6, tolerance=1e9)
    strict = HessianTrace(min_probes=3, max_probes=6, tolerance=0.0)
    assert loose.traces(tiny_llama, tiny_tokens[:2], tiny_space).n_probes == 3
    assert strict.traces(tiny_llama, tiny_tokens[:2], tiny_space).n_probes == 6


def test_negative_traces_count_as_zero(tiny_llama, tiny_tokens, tiny_space, tiny_bank, monkeypatch):
    n_layers = len(tiny_space.layers)
    traces = Traces(np.linspace(-1, 1, n_layers), np.zeros(n_layers), 2)
    monkeypatch.setattr(HessianTrace, "traces", lambda *_: traces)
    table = HessianTrace().estimate(tiny_llama, tiny_tokens[:1], tiny_space, tiny_bank)
    assert (table.values[traces.mean < 0] == 0).all()
    assert (table.values[traces.mean > 0] > 0).all()


@pytest.mark.parametrize(
    "fields", [{"min_probes": 1}, {"min_probes": 9, "max_probes": 8}, {"tolerance": -0.1}]
)
def test_refuses_values_out_of_range(fields):
    with pytest.raises(InvalidArgument, match="use"):
        HessianTrace(**fields)
