"""GPTAQ: nearer to the outputs of the unquantized model, on inputs that earlier layers changed."""

import copy

import pytest
import torch

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument, NonFinite
from bitfront.formats import named
from bitfront.models.bank import WeightBank
from bitfront.models.layers import get_weight, search_space, set_weight
from bitfront.models.shifted import ShiftedGrams, shifted_grams
from bitfront.models.statistics import input_grams
from bitfront.quantizers.gptaq import Gptaq
from bitfront.quantizers.gptq import Gptq


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs():
    """Of a layer as they were, and as quantized layers leave them: `[n_tokens, n_columns]`."""
    x = gaussian(1024, 40, seed=1) @ gaussian(40, 128, seed=2) + 0.3 * gaussian(1024, 128, seed=3)
    y = x + 0.3 * x @ gaussian(128, 128, seed=4) / 128**0.5
    return x, y + 0.5 * gaussian(1024, 128, seed=6)


def statistics(x, y):
    return torch.stack([y.T @ y, (x - y).T @ y])[:, None] / len(x)


@pytest.mark.parametrize("name", ["int3_g64", "nf4_g64", "int3_g64_had", "binary_salient20"])
def test_outputs_come_nearer_to_those_of_the_unquantized_model(name):
    """The claim of arXiv:2504.02692, in its own objective."""
    weight, (x, y) = gaussian(32, 128, seed=5) * 0.02, inputs()
    given = statistics(x, y)
    ours, plain = (
        (x @ weight.T - y @ quantizer.quantize(weight, named(name), seen).dequantize().T).norm()
        for quantizer, seen in ((Gptaq(share=1.0, ridge=0.01), given), (Gptq(), given[0, 0]))
    )
    assert ours < 0.9 * plain


def test_the_whole_correction_is_least_squares():
    """At 8 bits rounding is nothing: what is left is what no matrix can mend."""
    weight, (x, y) = gaussian(16, 128, seed=5), inputs()
    quantizer = Gptaq(share=1.0, ridge=1e-6)
    values = quantizer.quantize(weight, named("int8_g64"), statistics(x, y)).dequantize()
    best = torch.linalg.lstsq(y.double(), (x @ weight.T).double()).solution
    left = (x @ weight.T - y @ values.T).norm()
    assert left < 1.02 * (x @ weight.T - y @ best.float()).norm()


def test_relative_errors_are_refused():
    """H and C are measured with all positions alike."""
    with pytest.raises(InvalidArgument, match="relative=True"):
        Gptaq(relative=True)


def test_without_a_shift_it_is_gptq():
    weight, (x, _) = gaussian(16, 128), inputs()
    gram = x.T @ x / len(x)
    plain = Gptq().quantize(weight, named("int3_g64"), gram).codes
    assert torch.equal(Gptaq().quantize(weight, named("int3_g64"), gram).codes, plain)
    unshifted = torch.stack([gram, torch.zeros_like(gram)])[:, None]
    assert torch.equal(Gptaq().quantize(weight, named("int3_g64"), unshifted).codes, plain)


def test_layers_without_inputs_and_bad_statistics():
    weight = gaussian(16, 128)
    values = Gptaq().quantize(weight, named("int4_g64"), torch.zeros(2, 1, 128, 128)).dequantize()
    assert (values - weight).abs().max() < 1
    broken = statistics(*inputs())
    broken[1, 0, 3, 4] = torch.nan
    with pytest.raises(NonFinite, match="holds 1 NaN"):
        Gptaq().quantize(weight, named("int4_g64"), broken)
    with pytest.raises(InvalidArgument, match="needs a Hessian of shape"):
        Gptaq().quantize(weight, named("int4_g64"), torch.zeros(3, 128, 128))


def test_statistics_of_an_unchanged_model_are_its_gram_matrices(tiny_llama, tiny_tokens):
    names = [f"model.layers.1.self_attn.{x}_proj" for x in "qkv"]
    found = shifted_grams(tiny_llama, tiny_llama, tiny_tokens[:2], names)
    expected = input_grams(tiny_llama, tiny_tokens[:2], names)
    for name in names:
        torch.testing.assert_close(found[name][0, 0], expected[name])
        assert (found[name][1] == 0).all()


def test_matrices_are_measured_behind_the_weights_of_the_bank(tiny_moe, tiny_tokens, tmp_path):
    """Of a pair those of its weight's format; experts that saw no token are rounded to nearest."""
    space = search_space(tiny_moe, (named("int2_g32_aint8"),), None, True)
    allocation = Allocation({layer.name: "int2_g32_aint8" for layer in space.layers})
    grams = ShiftedGrams(tiny_moe, tiny_tokens[:1, :4], space, allocation, Gptaq())
    bank = WeightBank.build(tmp_path, tiny_moe, space, Gptaq(), grams, used=allocation)
    last = space.layers[-1].group
    before = [layer.name for layer in space.layers if layer.group != last]
    assert len(before) > 30
    for name in before:
        held = get_weight(grams._changed, name)
        assert torch.equal(held, bank.weight(name, "int2_g32_aint8")), name


def test_a_model_quantized_in_order_loses_less(tiny_llama, tiny_tokens, tmp_path):
    space = search_space(tiny_llama, (named("int2_g64"),), None, True)
    allocation = Allocation({layer.name: "int2_g64" for layer in space.layers})
    tokens, held_out = tiny_tokens[:6], tiny_tokens[6:10]
    with torch.no_grad():
        reference = tiny_llama(held_out).logits.log_softmax(-1)

    def loss(bank):
        model = copy.deepcopy(tiny_llama)
        for layer in space.layers:
            set_weight(model, layer.name, bank.weight(layer.name, "int2_g64"))
        with torch.no_grad():
            logits = model(held_out).logits.log_softmax(-1)
        return (reference.exp() * (reference - logits)).sum(-1).mean().item(), model

    ours = ShiftedGrams(tiny_llama, tokens, space, allocation, Gptaq())
    names = [layer.name for layer in space.layers]
    banks = [
        WeightBank.build(tmp_path, tiny_llama, space, quantizer, grams, used=allocation)
        for quantizer, grams in ((Gptaq(), ours), (Gptq(), input_grams(tiny_llama, tokens, names)))
    ]
    (shifted, model), (plain, _) = map(loss, banks)
    assert shifted < 0.95 * plain
    # the matrices were measured with the very weights that the bank holds
    again = shifted_grams(tiny_llama, model, tokens, names[-1:])
    torch.testing.assert_close(ours[names[-1]], again[names[-1]], rtol=1e-4, atol=1e-6)
    assert list(ours) == names
    assert get_weight(tiny_llama, names[0]) is not get_weight(model, names[0])
