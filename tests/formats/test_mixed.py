"""Widths by groups of columns: exact bytes, one launch, and who gets the bits."""

import pytest
import torch

from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.formats.mixed import Mixed
from bitfront.kernels import weights
from bitfront.models.quant_linear import QuantEmbedding, QuantLinear, keep_decoded
from bitfront.quantizers.gptq import Gptq
from bitfront.quantizers.rtn import Rtn
from bitfront.quantizers.slim import Slim

SHAPE = (24, 512)


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def uneven(seed=0):
    """A weight some of whose groups of 32 columns are much larger than others."""
    size = torch.exp(gaussian(16, seed=seed + 1)).repeat_interleave(32)
    return gaussian(*SHAPE, seed=seed) * 0.02 * size


def widths(quantized):
    """Bits of each group, from the largest code in it."""
    n_groups = len(quantized.qparams["order"])
    largest = quantized.codes.reshape(SHAPE[0], n_groups, -1).amax(dim=(0, 2))
    return [int(code).bit_length() for code in largest]


@pytest.mark.parametrize("name", ["slim2_g32", "slim3_g64", "slim4_g32", "int2x4_g32"])
def test_the_widest_ranges_get_the_most_bits_and_all_of_their_codes(name):
    format, weight = named(name), uneven()
    found = widths(Rtn(clip_steps=0).quantize(weight, format))
    ranges = weight.reshape(SHAPE[0], len(found), -1)
    ranges = (ranges.amax(2).clamp(min=0) - ranges.amin(2).clamp(max=0)).square().sum(0)
    by_range = [found[i] for i in ranges.argsort()]
    assert by_range == sorted(found)
    counts = format.counts(SHAPE[1])
    assert [found.count(grid.num_bits) for grid in format.grids()][1:] == list(counts)[1:]
    assert sum(found) / len(found) == format.code_bits


@pytest.mark.parametrize(
    ("name", "shape", "bits"),
    [
        ("slim3_g64", (16, 512), 3 + 32 / 64 + 8 * 16 / (16 * 512)),
        ("slim2_g32", (16, 96), 2 + 1 + 3 * 16 / (16 * 96)),  # too few groups to mix
        ("int2x4_g32", (16, 512), 2.5 + 1 + 16 * 16 / (16 * 512)),
    ],
)
def test_bits_count_the_order(name, shape, bits):
    assert named(name).bits_per_weight(shape) == bits
    tensors = Rtn(clip_steps=0).quantize(gaussian(*shape), named(name)).tensors()
    assert 8 * sum(t.nbytes for t in tensors.values()) == bits * shape[0] * shape[1]


@pytest.mark.parametrize(("name", "n_tokens"), [("slim2_g32", 1), ("int2x4_g64", 5)])
def test_one_launch_multiplies_all_widths(name, n_tokens, monkeypatch):
    """Interpreted where there is no GPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = (8, 256)
    quantized = Slim().quantize(gaussian(*shape), named(name), torch.eye(256))
    tensors = {key: t.to(device) for key, t in quantized.tensors().items()}
    x = gaussian(n_tokens, 256, seed=3).half().to(device)
    monkeypatch.setattr("bitfront.kernels.dequant_matmul.can_run_triton", lambda device: True)
    launches, run = [], weights.dequant_matmul
    monkeypatch.setattr(weights, "dequant_matmul", lambda *a: launches.append(a) or run(*a))
    out = weights.multiply(x, quantized.format, tensors, shape)
    exact = x.cpu().double() @ quantized.dequantize().double().T
    assert (out.cpu().double() - exact).norm() < 1e-3 * exact.norm()
    assert len(launches) == 1
    decoded = weights.decoded(quantized.format, tensors, shape).cpu()
    torch.testing.assert_close(decoded, quantized.dequantize())


@pytest.mark.parametrize("name", ["slim3_g32", "int2x4_g64"])
def test_a_packed_layer_gives_the_product_of_its_weight(name):
    quantized = Rtn().quantize(uneven(), named(name))
    layer = QuantLinear(quantized.format, SHAPE, torch.float32)
    table = QuantEmbedding(quantized.format, SHAPE, torch.float32)
    for each in (layer, table):
        each.load_state_dict(quantized.tensors(), strict=False)
    x = gaussian(3, SHAPE[1], seed=1)
    expected = x @ quantized.dequantize().T
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(table(torch.tensor([5])), quantized.dequantize()[[5]])
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))
    keep_decoded(layer)
    torch.testing.assert_close(layer(x), expected)


def test_slim_beats_gptq_where_groups_of_columns_differ():
    """SliM-LLM's claim: at 2 bits, structured salience, correlated inputs."""
    weight = uneven()
    x = gaussian(2048, 60, seed=5) @ gaussian(60, SHAPE[1], seed=6)
    x += 0.3 * gaussian(2048, SHAPE[1], seed=7)
    x[:, 64:128] *= 6
    gram = x.T @ x / len(x)

    def output_error(quantizer, name):
        error = quantizer.quantize(weight, named(name), gram).dequantize() - weight
        return float(((error @ gram) * error).sum())

    plain = output_error(Gptq(), "int2_g32")
    assert output_error(Slim(), "slim2_g32") < 0.75 * plain


def test_salience_counts_what_inputs_do():
    """The same range everywhere; the inputs of two groups are large."""
    weight, gram = gaussian(*SHAPE), torch.eye(SHAPE[1])
    gram[96:128] *= 50
    gram[256:288] *= 50
    by_salience, by_range = (q.quantize(weight, named("slim3_g32"), gram) for q in (Slim(), Gptq()))
    assert by_salience.qparams["order"][-2:].tolist() == [3, 8]
    errors = [
        float(((q.dequantize() - weight).square() * gram.diagonal()).sum())
        for q in (by_salience, by_range)
    ]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize(
    "fields",
    [
        {"num_bits": 5, "narrow_bits": 4, "wide_bits": 6},
        {"wide_bits": 3},
        {"narrow_bits": 0},
        {"wide_bits": 9},
        {"one_in": 1},
        {"group_size": 16},
    ],
)
def test_fields_out_of_range_are_refused(fields):
    with pytest.raises(InvalidArgument, match=str(list(fields.values())[-1])):
        Mixed(**fields)


def test_a_table_with_as_many_rows_as_groups_keeps_their_order():
    format, weight = named("slim3_g32"), gaussian(4, 128)
    table = QuantEmbedding(format, weight.shape, torch.float32)
    table.load_state_dict(Slim().quantize(weight, format, torch.eye(128)).tensors())
    ids = torch.tensor([3, 1])
    torch.testing.assert_close(table(ids), table.matrix(torch.float32)[ids])
