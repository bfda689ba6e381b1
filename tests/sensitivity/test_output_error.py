"""output_error and weight_error by their definitions."""

import pytest
import torch

from bitfront.errors import InvalidArgument
from bitfront.models.layers import get_weight
from bitfront.sensitivity.output_error import OutputError
from bitfront.sensitivity.weight_error import WeightError


def inputs_of(model, name, tokens):
    seen = []
    module = model.get_submodule(name)
    hook = module.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        model(tokens)
    hook.remove()
    return seen[0].flatten(0, 1)


@pytest.mark.parametrize("relative", [False, True])
def test_output_error_is_the_mean_squared_error_of_the_output(
    relative, tiny_llama, tiny_tokens, tiny_space, tiny_bank
):
    tokens = tiny_tokens[:2]
    table = OutputError(relative=relative).estimate(tiny_llama, tokens, tiny_space, tiny_bank)
    assert table.reduction == ("max" if relative else "sum")
    for row in (0, 6, 20):
        name = tiny_space.layers[row].name
        x, weight = inputs_of(tiny_llama, name, tokens), get_weight(tiny_llama, name)
        for column, format in enumerate(tiny_space.formats):
            difference = tiny_bank.weight(name, format.name) - weight
            expected = (x @ difference.T).square().sum() / len(x)
            if relative:
                expected /= (x @ weight.T).square().sum() / len(x)
            assert table.values[row, column] == pytest.approx(float(expected), rel=1e-3)


def test_output_error_does_not_depend_on_the_memory_for_gram_matrices(
    tiny_llama, tiny_tokens, tiny_space, tiny_bank
):
    tables = [
        OutputError(max_gram_gib=gib).estimate(tiny_llama, tiny_tokens[:1], tiny_space, tiny_bank)
        for gib in (2.0, 1e-4)
    ]
    torch.testing.assert_close(*(torch.tensor(t.values) for t in tables), rtol=1e-5, atol=0)


@pytest.mark.parametrize("relative", [False, True])
def test_weight_error_is_the_squared_norm(relative, tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    table = WeightError(relative=relative).estimate(tiny_llama, tiny_tokens, tiny_space, tiny_bank)
    name = tiny_space.layers[3].name
    weight = get_weight(tiny_llama, name)
    expected = (tiny_bank.weight(name, "int3_g64") - weight).square().sum()
    if relative:
        expected /= weight.square().sum()
    assert table.values[3, 1] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("gib", [0.0, -1.0, float("nan")])
def test_refuses_no_memory(gib):
    with pytest.raises(InvalidArgument, match="positive"):
        OutputError(max_gram_gib=gib)
