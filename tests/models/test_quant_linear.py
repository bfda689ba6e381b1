"""Packed layers on a CPU: the way they multiply by dtype and tokens, and what they keep."""

import pytest
import torch
from torch import nn

from bitfront import formats
from bitfront.kernels import torch_cpu
from bitfront.models.quant_linear import QuantEmbedding, QuantLinear, TiedHead, keep_decoded
from bitfront.quantizers.rtn import Rtn

SHAPE = (48, 256)
needs_vectors = pytest.mark.skipif(
    torch_cpu.most_tokens(is_kept=False) == 0, reason="torch has no fast operators for this CPU"
)


def packed(name, seed, dtype=torch.bfloat16, kind=QuantLinear, shape=SHAPE):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator) / 16 + 0.01
    format = formats.named(name)
    layer = kind(format, shape, dtype)
    layer.load_state_dict(Rtn(clip_steps=0).quantize(weight, format).tensors(), strict=False)
    return layer


def error(out, layer, x):
    expected = x.double() @ layer.matrix(torch.float32).double().T
    return float((out.double() - expected).norm() / expected.norm())


LOW_BIT = [
    f.name for f in formats.catalogue().values() if torch_cpu.can_multiply(f, SHAPE)
]  # int1 to int4 of every kind, and int5 to int8 of symmetric rows


@pytest.mark.parametrize(
    "name", [n for n, f in formats.catalogue().items() if f.scaled and f.input_format is None]
)
def test_every_format_multiplies_and_looks_up_at_its_narrowest(name):
    """Where a format of several widths has groups of one width alone."""
    format = formats.named(name)
    step = format.group_columns or 32
    shape = (16, next(step * n for n in range(1, 9) if format.fits((16, step * n))))
    ids = torch.tensor([15, 0])
    for dtype, limit in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        layer, table = (packed(name, 0, dtype, x, shape) for x in (QuantLinear, QuantEmbedding))
        x = torch.randn(2, shape[1], generator=torch.Generator().manual_seed(1)).to(dtype)
        assert error(layer(x), layer, x) < limit
        torch.testing.assert_close(table(ids), layer.matrix(dtype)[ids])


def test_integers_have_operators():
    assert len(LOW_BIT) == 4 + 3 * 4 * 2 + 4
    assert not torch_cpu.can_multiply(formats.named("int4_g64"), (40, 256))
    assert not torch_cpu.can_multiply(formats.named("nf4_g64"), SHAPE)
    assert torch_cpu.can_multiply(formats.named("int8_channel_sym"), (13, 112))
    assert not torch_cpu.can_multiply(formats.named("int8_channel_sym"), (13, 120))


@pytest.mark.parametrize("name", ["int5_channel_sym", "int8_channel_sym", "int4_channel"])
def test_few_tokens_are_multiplied_by_rows_of_any_width(name):
    """An operator that reads past the end of a row gives not-a-number, or ends the process."""
    for n_columns in (*range(1, 65), 100, 120, 132, 312, 336):
        for n_rows in (1, 13, 16, 40):
            layer = packed(name, 0, shape=(n_rows, n_columns))
            weight = layer.matrix(torch.float32).T
            for n_tokens in (1, 4, 32):
                x = torch.randn(n_tokens, n_columns).bfloat16()
                off = (layer(x).float() - x.float() @ weight).abs()
                assert (off <= 1e-2 * (x.float().abs() @ weight.abs())).all(), layer


@needs_vectors
@pytest.mark.parametrize("name", LOW_BIT)
@pytest.mark.parametrize("n_tokens", [1, 3, 32])
def test_low_bit_operators_err_like_bfloat16_weights(name, n_tokens):
    seed = torch.seed() % 2**32
    print("seed", seed)
    layer = packed(name, seed)
    x = torch.randn(n_tokens, SHAPE[1], dtype=torch.bfloat16)
    out = layer(x)
    assert layer._low_bit is not None
    rounded = nn.functional.linear(x, layer.matrix(torch.bfloat16))
    # Twice at most: scales and zero points are rounded to bfloat16 where else the weight is.
    assert error(out, layer, x) < max(2 * error(rounded, layer, x), 6e-3)


@needs_vectors
@pytest.mark.parametrize("name", ["int4_g64", "int8_channel_sym"])
def test_few_tokens_may_be_any_view(name):
    """As the last token of each sequence is, which alone a head is given."""
    layer, x = packed(name, 0), torch.randn(2, 3, 320).bfloat16()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for view in (x[:, -1:, :256], x[:, :, 1:257], torch.randn(256, 5).bfloat16().T):
        expected = layer(view.contiguous().clone())
        assert layer._low_bit is not None
        torch.testing.assert_close(layer(view), expected)
        torch.testing.assert_close(compiled(view), expected)


@needs_vectors
@pytest.mark.parametrize("name", ["int4_g64", "int8_channel_sym"])
@pytest.mark.parametrize("n_bytes", [2, 8, 24])
def test_few_tokens_may_begin_at_any_address(name, n_bytes):
    """As those read from a file do, whose tensors have no offset of their own."""
    layer, x = packed(name, 0), torch.randn(4, 256).bfloat16()
    held = torch.zeros(n_bytes + x.nbytes, dtype=torch.uint8)
    held[n_bytes:] = x.view(torch.uint8).flatten()
    lent = torch.frombuffer(held.numpy().data[n_bytes:], dtype=torch.bfloat16).view(4, 256)
    assert not lent.storage_offset()
    torch.testing.assert_close(layer(lent), layer(x))


@needs_vectors
def test_what_multiplies_follows_from_dtype_tokens_and_gradients():
    layer = packed("int4_g64", 0)
    few, many = torch.randn(2, 3, 256).bfloat16(), torch.randn(40, 256).bfloat16()
    for x in (many, few.float(), few.clone().requires_grad_()):
        assert layer(x).dtype == x.dtype
        assert layer._low_bit is None
    assert layer(few).shape == (2, 3, 48)
    assert layer._low_bit is not None
    exact = nn.functional.linear(few.float(), layer.matrix(torch.float32))
    assert torch.equal(layer(few.float()), exact)


@needs_vectors
@pytest.mark.parametrize("change", ["load", "move"])
def test_no_copy_outlives_its_weight(change):
    layer, other = packed("int4_g64", 0), packed("int4_g64", 1)
    x = torch.randn(1, 256).bfloat16()
    keep_decoded(layer), keep_decoded(other)  # by which a CPU chooses how it multiplies
    before = layer(x), layer(x.float())
    if change == "load":
        layer.load_state_dict(other.state_dict())
        assert torch.equal(layer(x), other(x))
        assert torch.equal(layer(x.float()), other(x.float()))
    else:
        layer.to("cpu")
        assert layer._low_bit is layer._kept is None
        assert torch.equal(layer(x), before[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_layers_compile_whole_and_give_the_same(dtype):
    layer, table = packed("int3_g64", 0), packed("nf4_g64", 1, dtype, QuantEmbedding)
    model, head = nn.Sequential(layer, nn.ReLU()), TiedHead(table)
    x = torch.randn(3, 256, dtype=dtype)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x), rtol=2e-2, atol=2e-2)
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), head(x))


def test_gradients_reach_the_inputs_and_the_bias():
    layer = packed("int4_g64", 0, torch.float32)
    layer.bias = nn.Parameter(torch.zeros(48))
    x = torch.randn(2, 3, 256, requires_grad=True)
    layer(x).sum().backward()
    expected = layer.matrix(torch.float32).sum(0).expand(2, 3, -1)
    torch.testing.assert_close(x.grad, expected)
    assert torch.equal(layer.bias.grad, torch.full((48,), 6.0))
