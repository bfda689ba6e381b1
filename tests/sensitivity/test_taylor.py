"""Taylor and FisherLowrank by their definitions."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from bitfront.errors import InvalidArgument
from bitfront.models.layers import get_weight
from bitfront.sensitivity.fisher import Fisher
from bitfront.sensitivity.fisher_lowrank import FisherLowrank, leading
from bitfront.sensitivity.taylor import Taylor


def test_the_first_term_is_the_slope_of_the_loss_and_the_second_that_of_fisher(
    tiny_llama, tiny_tokens, tiny_space, tiny_bank
):
    given = (tiny_llama, tiny_tokens[:2], tiny_space, tiny_bank)
    first, second, both = (
        Taylor(order=order).estimate(*given).values for order in ("first", "second", "both")
    )
    np.testing.assert_allclose(first + second, both, rtol=1e-6)
    np.testing.assert_allclose(second, Fisher(labels="text").estimate(*given).values, rtol=1e-4)
    name = tiny_space.layers[5].name
    weight = tiny_llama.get_submodule(name).weight
    error = tiny_bank.weight(name, tiny_space.formats[0].name) - get_weight(tiny_llama, name)
    logits = tiny_llama(tiny_tokens[:2]).logits[:, :-1]
    loss = cross_entropy(logits.flatten(0, 1), tiny_tokens[:2, 1:].flatten())
    (gradient,) = torch.autograd.grad(loss, weight)
    assert first[5, 0] == pytest.approx(float((gradient * error).sum()), rel=1e-3)


def test_at_full_rank_the_form_is_exact(tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    """1/2 E[e^T F e] with F = E[g g^T] in full, from autograd on the layer's output."""
    tokens, row = tiny_tokens[:2], 5
    estimator = FisherLowrank(rank=128, labels="text")
    values = estimator.estimate(tiny_llama, tokens, tiny_space, tiny_bank).values
    name = tiny_space.layers[row].name
    kept = {}

    def hook(_module, args, output):
        kept["x"], kept["y"] = args[0].detach().flatten(0, 1), output.requires_grad_()

    handle = tiny_llama.get_submodule(name).register_forward_hook(hook)
    logits = tiny_llama(tokens).logits[:, :-1].flatten(0, 1)
    handle.remove()
    loss = cross_entropy(logits, tokens[:, 1:].flatten(), reduction="sum")
    gradient = torch.autograd.grad(loss, kept["y"])[0].flatten(0, 1)
    error = tiny_bank.weight(name, tiny_space.formats[0].name) - get_weight(tiny_llama, name)
    n = tokens[:, 1:].numel()
    fisher, outputs = gradient.T @ gradient / n, kept["x"] @ error.T
    expected = float(((outputs @ fisher) * outputs).sum()) / (2 * n)
    assert values[row, 0] == pytest.approx(expected, rel=1e-3)


def test_leading_eigenvectors_of_few_rows():
    rows = torch.randn(40, 12, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 13)
    vectors, values = leading(rows, 2, seed=0)
    expected = torch.linalg.eigvalsh(rows.T @ rows)[-2:]
    torch.testing.assert_close(values, expected, rtol=1e-2, atol=0)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(2), rtol=0, atol=1e-5)


def test_refuses_unknown_orders_and_ranks():
    with pytest.raises(InvalidArgument, match="first, second, both"):
        Taylor(order="third")
    with pytest.raises(InvalidArgument, match="rank"):
        FisherLowrank(rank=0)
