"""Levels by squared gradients: true ones, their shape, and what they buy."""

from dataclasses import replace

import pytest
import torch

from bitfront.errors import InvalidArgument, NonFinite
from bitfront.formats import named
from bitfront.models.bank import WeightBank
from bitfront.models.fishers import FisherDiagonals
from bitfront.models.layers import get_weight, search_space
from bitfront.quantizers.kmeans import Kmeans
from bitfront.quantizers.rtn import Rtn

BY_GRADIENTS = Kmeans(by="gradients")


@pytest.fixture(scope="module")
def space(tiny_llama):
    return search_space(tiny_llama, (named("lut3_channel"), named("int3_channel")), None, True)


@pytest.fixture(scope="module")
def fishers(tiny_llama, tiny_tokens, space):
    return FisherDiagonals(tiny_llama, tiny_tokens[:4], space)


def test_a_diagonal_is_the_mean_square_of_gradients(tiny_llama, tiny_tokens, space, fishers):
    """Against autograd, one sequence at a time, with labels drawn from the same predictions."""
    layer, total = space.layers[3].name, 0.0
    uniforms = torch.rand(1, 4, 127, generator=torch.Generator().manual_seed(0))[0]
    weight = tiny_llama.get_submodule(layer).weight
    for tokens, uniform in zip(tiny_tokens[:4], uniforms, strict=True):
        logits = tiny_llama(tokens[None]).logits[0, :-1]
        drawn = torch.searchsorted(logits.detach().softmax(-1).cumsum(-1), uniform[:, None])
        loss = torch.nn.functional.cross_entropy(logits, drawn[:, 0], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, weight)
        total = total + gradient.square()
    torch.testing.assert_close(fishers[layer], total / (4 * 127), rtol=1e-3, atol=1e-9)


def test_few_layers_a_pass_give_the_same(tiny_llama, tiny_tokens, space, fishers):
    one_by_one = FisherDiagonals(tiny_llama, tiny_tokens[:4], space, max_bytes=1)
    assert list(one_by_one) == [x.name for x in space.layers]
    for name in list(fishers)[:3]:
        torch.testing.assert_close(one_by_one[name], fishers[name])
    assert one_by_one.get("model.embed_tokens") is None


@pytest.mark.parametrize(
    "name",
    [
        "lut3_channel",
        "int3_channel",
        "lut4_g64",
        "binary_salient20",
        "bit_planes2_g64",
        "ternary_g64",
    ],
)
def test_what_costs_the_loss_most_is_kept_best(tiny_llama, space, fishers, name):
    """SqueezeLLM's claim, over the layers: less Fisher-weighted error than without weights."""
    ratios = []
    for layer in space.layers[::4]:
        weight, fisher = get_weight(tiny_llama, layer.name).detach(), fishers[layer.name]
        ours, others = (
            (
                fisher * (q.quantize(weight, named(name), fisher).dequantize() - weight).square()
            ).sum()
            for q in (BY_GRADIENTS, Rtn())
        )
        ratios.append(float(ours / others))
    assert max(ratios) < 1.0001
    assert sum(ratios) / len(ratios) < 0.97


def test_a_bank_takes_gradients_in_the_place_of_gram_matrices(tmp_path, tiny_llama, space, fishers):
    few = replace(space, layers=space.layers[:1])
    bank = WeightBank.build(tmp_path, tiny_llama, few, BY_GRADIENTS, fishers)
    layer = space.layers[0].name
    weight = get_weight(tiny_llama, layer).detach()
    expected = BY_GRADIENTS.quantize(weight, named("lut3_channel"), fishers[layer]).dequantize()
    assert torch.equal(bank.weight(layer, "lut3_channel"), expected)


def test_turned_weights_all_count_alike():
    weight = torch.randn(8, 128, generator=torch.Generator().manual_seed(0))
    values = BY_GRADIENTS.quantize(weight, named("int3_g64_had"), weight.square()).dequantize()
    assert torch.equal(values, Rtn().quantize(weight, named("int3_g64_had")).dequantize())


@pytest.mark.parametrize("given", [None, torch.ones(4, 32), torch.ones(32, 32)])
def test_gradients_of_another_shape_are_refused(given):
    with pytest.raises(InvalidArgument, match=r"Squared gradients of a weight of shape \(4, 64\)"):
        BY_GRADIENTS.quantize(torch.ones(4, 64), named("int3_channel"), given)


def test_gradients_that_are_not_finite_are_refused():
    with pytest.raises(NonFinite, match="A Fisher diagonal"):
        BY_GRADIENTS.quantize(
            torch.ones(4, 64), named("int3_channel"), torch.full((4, 64), torch.nan)
        )


def test_another_way_of_weighing_is_refused():
    with pytest.raises(InvalidArgument, match="by=outputs is not inputs or gradients"):
        Kmeans(by="outputs")
