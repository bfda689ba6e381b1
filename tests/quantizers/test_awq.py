"""AWQ: what column scales gain, and that they cost no exactness."""

import pytest
import torch

from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.formats.column_scaled import EXPONENTS, ColumnScaled
from bitfront.formats.int_grouped import IntGrouped
from bitfront.models.quant_linear import QuantEmbedding, QuantLinear
from bitfront.quantizers.awq import Awq
from bitfront.quantizers.rtn import Rtn

SHAPE = (32, 256)


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gram(n_tokens=512):
    """Of inputs a few of whose columns are thirty times the others, as in language models."""
    x = gaussian(n_tokens, SHAPE[1], seed=1)
    x[:, ::37] *= 30
    return x.T @ x / n_tokens


def output_error(values, weight, hessian):
    error = values - weight
    return ((error @ hessian) * error).sum().item()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_scaled_columns_lower_the_output_error_beyond_what_clips_do(bits):
    weight, hessian = gaussian(*SHAPE) * 0.02, gram()
    plain, scaled = (
        output_error(Awq().quantize(weight, named(n), hessian).dequantize(), weight, hessian)
        for n in (f"int{bits}_g64", f"int{bits}_g64_cols")
    )
    assert scaled < 0.76 * plain
    one = Awq(n_powers=1).quantize(weight, named(f"int{bits}_g64_cols"), hessian).dequantize()
    assert output_error(one, weight, hessian) == pytest.approx(plain)


def test_columns_of_large_inputs_get_the_finer_grid():
    quantized = Awq().quantize(gaussian(*SHAPE), named("int3_g64_cols"), gram())
    exponents = quantized.qparams[EXPONENTS][0].int() - 127
    large = torch.arange(SHAPE[1]) % 37 == 0
    assert exponents[large].max() < exponents[~large].min()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_scaling_inputs_is_scaling_columns_to_the_bit(dtype):
    format = named("int4_g64_cols")
    quantized = Awq().quantize(gaussian(*SHAPE) * 0.02, format, gram())
    assert quantized.qparams[EXPONENTS].unique().numel() > 1
    layer = QuantLinear(format, SHAPE, dtype)
    layer.load_state_dict(quantized.tensors())
    x = gaussian(40, SHAPE[1], seed=2).to(dtype)
    expected = torch.nn.functional.linear(x, quantized.dequantize().to(dtype))
    assert torch.equal(layer(x), expected)
    few = layer(x[:2])
    torch.testing.assert_close(few, expected[:2], rtol=2e-2, atol=2e-2)


def test_rows_of_a_table_are_those_of_the_whole_where_it_is_square():
    format, weight = named("int4_g64_cols"), gaussian(128, 128)
    quantized = Awq().quantize(weight, format, gram()[:128, :128])
    table = QuantEmbedding(format, (128, 128), torch.float32)
    table.load_state_dict(quantized.tensors())
    assert torch.equal(table(torch.tensor([5, 127, 0])), quantized.dequantize()[[5, 127, 0]])


def test_without_scales_the_codes_are_those_of_the_integers():
    weight = gaussian(*SHAPE)
    ours, plain = (Rtn().quantize(weight, named(n)) for n in ("int3_g64_cols", "int3_g64"))
    assert torch.equal(ours.codes, plain.codes)
    assert torch.equal(ours.dequantize(), plain.dequantize())


@pytest.mark.parametrize("power", [0.0, 1e-30, 1e30])
def test_inputs_of_any_size_give_finite_weights(power):
    hessian = gram() * power
    hessian[:, 3] = hessian[3] = 0
    values = Awq().quantize(gaussian(*SHAPE), named("int3_g64_cols"), hessian).dequantize()
    assert values.isfinite().all()
    assert (values - gaussian(*SHAPE)).abs().max() < 4


def test_whole_rows_are_refused():
    with pytest.raises(InvalidArgument, match="groups of 32, 64 or 128"):
        ColumnScaled(IntGrouped(4, None))
