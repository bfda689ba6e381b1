"""DeltaLoss: signed KL shares add up to the KL of the uniform model; signed NLL is a derivative."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.models.patch import PatchedModel
from bitfront.models.reference import Reference
from bitfront.models.tasks import scored_outputs
from bitfront.sensitivity.delta_loss import DeltaLoss


def uniform(space, format):
    return Allocation({layer.name: format for layer in space.layers})


def uniform_kl(model, tokens, space, bank, format):
    reference = Reference.of(model, tokens)
    with PatchedModel(model, bank) as patched:
        patched.apply(uniform(space, format))
        return np.mean(
            [reference.kl(scored_outputs(model, s), i).mean() for i, s in enumerate(tokens)]
        )


@pytest.mark.parametrize(("format", "tolerance"), [("int8_g64", 0.02), ("int4_g64", 0.1)])
def test_signed_kl_shares_sum_to_the_kl_of_the_uniform_model(
    format, tolerance, tiny_llama, tiny_tokens, tiny_space, tiny_bank
):
    tokens = tiny_tokens[:8]
    table = DeltaLoss(loss="kl", signed=True).estimate(tiny_llama, tokens, tiny_space, tiny_bank)
    measured = uniform_kl(tiny_llama, tokens, tiny_space, tiny_bank, format)
    shares = table.values[:, tiny_space.column(format)]
    assert shares.sum() == pytest.approx(measured, rel=tolerance)


def test_signed_nll_is_the_slope_towards_the_uniform_model(
    tiny_llama, tiny_tokens, tiny_space, tiny_bank
):
    tokens, format, row = tiny_tokens[:2], "int4_g64", 3
    table = DeltaLoss(loss="nll", signed=True).estimate(tiny_llama, tokens, tiny_space, tiny_bank)
    weight = tiny_llama.get_submodule(tiny_space.layers[row].name).weight
    losses = {}
    with PatchedModel(tiny_llama, tiny_bank) as patched, torch.no_grad():
        patched.apply(uniform(tiny_space, format))
        error, end = patched.error(tiny_space.layers[row].name), weight.clone()
        for step in (0.9, 1.1):
            weight.copy_(end + (step - 1) * error)
            logits = tiny_llama(tokens).logits[:, :-1].double()
            losses[step] = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        weight.copy_(end)
    slope = float(losses[1.1] - losses[0.9]) / 0.2
    assert table.values[row, tiny_space.column(format)] == pytest.approx(slope, rel=0.02, abs=1e-5)


@pytest.mark.parametrize("loss", ["kl", "nll"])
def test_unsigned_bounds_signed(loss, tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    signed, unsigned = (
        DeltaLoss(loss, signed).estimate(tiny_llama, tiny_tokens[:2], tiny_space, tiny_bank).values
        for signed in (True, False)
    )
    assert (np.abs(signed) <= unsigned).all()


@pytest.mark.parametrize("fields", [{"loss": "mse"}, {"top_k": 0}])
def test_refuses_values_out_of_range(fields):
    with pytest.raises(InvalidArgument):
        DeltaLoss(**fields)
