"""Two levels a row and salient columns in four bits: which, at what price, and multiplied how."""

import pytest
import torch

from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.formats.binary_salient import BinarySalient
from bitfront.kernels import weights
from bitfront.models.quant_linear import QuantLinear
from bitfront.quantizers.gptq import Gptq
from bitfront.quantizers.kmeans import Kmeans
from bitfront.quantizers.rtn import Rtn

SHAPE = (24, 160)


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gram(loud):
    x = gaussian(512, SHAPE[1], seed=1)
    x[:, loud] *= 20
    return x.T @ x / len(x)


def test_1_61_bits_a_weight_in_large_matrices():
    """arXiv:2502.13179, abstract, where scales and mask are counted too."""
    assert named("binary_salient20").bits_per_weight((4096, 4096)) == pytest.approx(1.61, abs=0.01)


def test_columns_of_loud_inputs_are_the_salient_ones():
    loud = torch.arange(3, SHAPE[1], 5)  # a fifth of them
    format, weight = named("binary_salient20"), gaussian(*SHAPE)
    quantized = Kmeans().quantize(weight, format, gram(loud))
    order = format.column_order(quantized.qparams, SHAPE[1])
    assert torch.equal(order[:32], loud)
    values = quantized.dequantize()
    quiet = [j for j in range(SHAPE[1]) if j not in loud]
    assert all(len(row.unique()) == 2 for row in values[:, quiet])
    error = (values - weight).square().mean(dim=0)
    assert error[loud].max() < 0.1 * error[quiet].min()


@pytest.mark.parametrize("quantizer", [Kmeans(), Gptq()], ids=["kmeans", "gptq"])
def test_salient_columns_beat_one_bit_everywhere_by_far(quantizer):
    """The paper's claim against binary weights, at 0.1 bits more."""
    weight, hessian = gaussian(*SHAPE), gram(torch.arange(3, SHAPE[1], 5))
    errors = []
    for name in ("binary_salient20", "int1_g32"):
        error = quantizer.quantize(weight, named(name), hessian).dequantize() - weight
        errors.append(((error @ hessian) * error).sum())
    assert errors[0] < 0.1 * errors[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_layer_multiplies_both_parts_by_their_own_inputs(dtype, monkeypatch):
    format, weight = named("binary_salient20"), gaussian(*SHAPE)
    quantized = Rtn().quantize(weight, format)
    layer = QuantLinear(format, SHAPE, dtype)
    layer.load_state_dict(quantized.tensors())
    x = gaussian(3, SHAPE[1], seed=2).to(dtype)
    expected = x.float() @ quantized.dequantize().T
    torch.testing.assert_close(layer(x).float(), expected, rtol=2e-2, atol=0.1)
    monkeypatch.setattr("bitfront.kernels.dequant_matmul.can_run_triton", lambda device: True)
    by_kernel = weights.decoded(format, layer.tensors(), SHAPE)  # interpreted
    torch.testing.assert_close(by_kernel, quantized.dequantize(), rtol=1e-6, atol=0)


def test_shapes_without_two_parts_of_whole_containers_do_not_fit():
    format = named("binary_salient10")
    assert format.fits((3, 32))
    assert not format.fits((3, 16))
    assert not format.fits((3, 40))
    with pytest.raises(InvalidArgument, match="percent=4: 5 to 50"):
        BinarySalient(4)
