"""Rotations keep lengths and products, and spread what sticks out; their formats gain by it."""

import pytest
import torch

from bitfront.formats import named
from bitfront.formats._rotation import Rotation
from bitfront.models.quant_linear import QuantEmbedding, QuantLinear
from bitfront.quantizers.gptq import Gptq
from bitfront.quantizers.rtn import Rtn


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n_columns", [1, 2, 37, 256, 570, 1024])
def test_turning_keeps_products_and_can_be_undone(n_columns):
    rotation = Rotation(n_columns)
    weight, x = gaussian(5, n_columns).double(), gaussian(7, n_columns, seed=1).double()
    turned = rotation.turn(weight)
    torch.testing.assert_close(rotation.turn(x) @ turned.T, x @ weight.T)
    torch.testing.assert_close(rotation.undo(turned), weight)
    gram = x.T @ x
    torch.testing.assert_close(rotation.gram(gram), rotation.turn(x).T @ rotation.turn(x))
    assert sum(size * count for size, count in rotation.blocks) == n_columns


def test_one_column_is_spread_over_its_block():
    turned = Rotation(320).turn(torch.eye(320))
    assert torch.equal(turned[:256, :256].abs(), torch.full((256, 256), 1 / 16))
    assert (turned[:256, 256:] == 0).all()
    assert turned[300, 256:].abs().max() == pytest.approx(1 / 8)


def test_the_signs_are_the_same_for_ever():
    """Packed checkpoints do not store them."""
    signs = Rotation(256).undo(torch.eye(256)[:1])[0]  # the first row of H is constant
    assert "".join("+" if s > 0 else "-" for s in signs[:16]) == "--+--++-++++-++-"


@pytest.mark.parametrize("name", ["int3_g64", "int4_g128_sym", "int4_channel", "fp4_g64"])
def test_columns_that_stick_out_cost_less_after_a_rotation(name):
    """QuaRot's claim; some columns are thirty times the others."""
    weight = gaussian(64, 512)
    weight[:, ::50] *= 30
    errors = [
        (Rtn().quantize(weight, named(n)).dequantize() - weight).square().mean()
        for n in (name, f"{name}_had")
    ]
    assert named(name).nbytes((64, 512)) == named(f"{name}_had").nbytes((64, 512))
    assert errors[1] < 0.75 * errors[0]


def test_gptq_works_on_turned_inputs():
    """Its claim in the turned basis, with a Gram matrix of strongly correlated inputs."""
    weight, format = gaussian(32, 256) * 0.02, named("int3_g64_had")
    x = gaussian(1024, 40, seed=1) @ gaussian(40, 256, seed=2) + 0.1 * gaussian(1024, 256, seed=3)
    gram = x.T @ x / len(x)

    def output_error(quantizer):
        error = quantizer.quantize(weight, format, gram).dequantize() - weight
        return ((error @ gram) * error).sum()

    assert output_error(Gptq()) < 0.1 * output_error(Rtn())


@pytest.mark.parametrize("name", ["int4_channel_had", "int3_g64_had", "mxfp4_had"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_packed_layer_turns_its_inputs_once(name, dtype):
    shape = (32, 192) if "channel" not in name else (32, 202)
    layer = QuantLinear(named(name), shape, dtype)
    quantized = Rtn().quantize(gaussian(*shape) * 0.02, named(name))
    layer.load_state_dict(quantized.tensors(), strict=False)
    x = gaussian(40, shape[1], seed=1).to(dtype).requires_grad_()
    out = layer(x)
    exact = x.detach().double() @ quantized.dequantize().double().T
    limit = 1e-5 if dtype == torch.float32 else 1e-2
    assert (out.double() - exact).norm() < limit * exact.norm()
    out.float().sum().backward()
    wanted = quantized.dequantize().sum(0).expand(40, -1)
    assert (x.grad.float() - wanted).norm() < limit * wanted.norm()


def test_a_packed_layer_compiles_whole():
    layer = QuantLinear(named("int4_g64_had"), (32, 128), torch.float32)
    layer.load_state_dict(Rtn().quantize(gaussian(32, 128), layer.format).tensors(), strict=False)
    x = gaussian(3, 128, seed=1)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))


def test_rows_of_an_embedding_are_turned_back():
    format, weight = named("int4_g64_had"), gaussian(20, 128)
    table = QuantEmbedding(format, (20, 128), torch.float32)
    quantized = Rtn().quantize(weight, format)
    table.load_state_dict(quantized.tensors(), strict=False)
    torch.testing.assert_close(table(torch.tensor([3, 11])), quantized.dequantize()[[3, 11]])
