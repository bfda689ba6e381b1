"""FisherOutput: its three resolutions by definition, and what keeping correlations buys."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from bitfront.errors import InvalidArgument
from bitfront.models.layers import get_weight
from bitfront.sensitivity.fisher_output import FisherOutput


def output_products(model, name, sequence, error):
    """Output gradient times output error of one sequence, `[length, out_features]`."""
    seen = {}

    def keep(_, inputs, output):
        seen["inputs"], seen["output"] = inputs[0].detach(), output

    hook = model.get_submodule(name).register_forward_hook(keep)
    logits = model(sequence[None]).logits[0, :-1]
    hook.remove()
    loss = cross_entropy(logits, sequence[1:], reduction="sum")
    gradient = torch.autograd.grad(loss, seen["output"])[0]
    return (gradient * (seen["inputs"] @ error.T))[0]


SUMS = {
    "element": lambda products: products.square().sum(),
    "token": lambda products: products.sum(dim=1).square().sum(),
    "sequence": lambda products: products.sum().square(),
}


@pytest.mark.parametrize("resolution", SUMS)
def test_entry_is_by_definition(resolution, tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    tokens = tiny_tokens[:3]
    estimator = FisherOutput(resolution=resolution, labels="text")
    table = estimator.estimate(tiny_llama, tokens, tiny_space, tiny_bank)
    for row in (0, 5, len(tiny_space.layers) - 1):
        name = tiny_space.layers[row].name
        for column, format in enumerate(tiny_space.formats):
            error = tiny_bank.weight(name, format.name) - get_weight(tiny_llama, name)
            products = [output_products(tiny_llama, name, s, error) for s in tokens]
            expected = float(sum(SUMS[resolution](p) for p in products))
            expected /= 2 * tokens[:, 1:].numel()
            assert table.values[row, column] == pytest.approx(expected, rel=1e-3)


def test_whole_sequences_predict_the_measured_kl_in_nats(
    tiny_llama, tiny_tokens, tiny_space, tiny_bank, measured
):
    # Short pieces and several draws: each squared number alone has a relative error of sqrt(2).
    tokens = tiny_tokens.view(-1, 32)
    estimator = FisherOutput(resolution="sequence", n_draws=4)
    table = estimator.estimate(tiny_llama, tokens, tiny_space, tiny_bank)
    column = tiny_space.column("int4_g64")
    ratio = table.values[:, column].sum() / measured.values[:, column].sum()
    assert 0.8 < ratio < 1.25


def test_refuses_an_unknown_resolution():
    with pytest.raises(InvalidArgument, match="element, token, sequence"):
        FisherOutput(resolution="layer")
