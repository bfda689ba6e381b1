"""Gaussian grids: as good as theory says, whatever the weights were, at every half bit."""

import json
from importlib.resources import files

import pytest
import torch

from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.formats._grids import pair_grid, scalar_grid
from bitfront.formats.gauss import Gauss
from bitfront.models.quant_linear import QuantEmbedding, QuantLinear
from bitfront.quantizers.gptq import Gptq
from bitfront.quantizers.rtn import Rtn

STORED = json.loads(files("bitfront.formats").joinpath("grids.json").read_text())
# Max 1960, table I: mean squared error of 4, 8 and 16 levels
MAX = {4: 0.1175, 8: 0.03454, 16: 0.009497}


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relative_error(name, weight):
    error = Rtn(clip_steps=0).quantize(weight, named(name)).dequantize() - weight
    return float(error.square().sum() / weight.square().sum())


@pytest.mark.parametrize("size", MAX)
def test_numbers_have_the_published_error(size):
    grid = torch.tensor(scalar_grid(size))
    numbers = gaussian(1 << 18)
    error = (numbers[:, None] - grid).square().amin(dim=1).mean()
    assert error == pytest.approx(MAX[size], rel=0.01)


@pytest.mark.parametrize("size", [int(size) for size in STORED])
def test_pairs_have_their_error_and_are_centres_of_what_is_nearest(size):
    format = Gauss(size, 2, None)
    numbers = gaussian(1, 1 << 17)
    codes = format.nearest(numbers)
    error = (format.values(codes) - numbers).square().mean()
    assert error == pytest.approx(STORED[str(size)]["error"], rel=0.02)
    held = codes[0].int() == int(codes[0].int().bincount().argmax())
    centre = numbers.reshape(-1, 2)[held].mean(dim=0)
    assert centre.tolist() == pytest.approx(pair_grid(size)[int(codes[0][held][0])], abs=0.05)
    # the fast way of searches errs a little more
    fast = (format.rounded(numbers) - numbers).square().mean()
    assert error <= fast <= 1.02 * error


@pytest.mark.parametrize("size", [16, 64, 256])
def test_pairs_err_less_than_numbers_of_as_many_bits(size):
    assert STORED[str(size)]["error"] < 0.93 * MAX[int(size**0.5)]


def test_each_half_bit_lowers_the_error_towards_the_bound():
    """The rate-distortion bound is a factor of 2 for half a bit (6.02 dB a bit)."""
    weight = gaussian(64, 512)
    errors = [relative_error(f"higgs_n{n}p2_g128", weight) for n in (16, 32, 64, 128, 256)]
    ratios = torch.tensor(errors[:-1]) / torch.tensor(errors[1:])
    assert ((ratios > 1.8) & (ratios < 2.0)).all()
    assert all(error > 4.0 ** -(2 + i / 2) for i, error in enumerate(errors))


@pytest.mark.parametrize("name", ["n8p1_g64", "n32p2_g128", "n64p2_channel"])
def test_the_error_does_not_depend_on_the_weights(name):
    """HIGGS's claim, on weights for which the grid alone is two to fifty times worse."""
    torch.manual_seed(0)
    normal = relative_error(f"higgs_{name}", gaussian(64, 512))
    tails = torch.distributions.StudentT(2.2).sample((64, 512))
    columns = gaussian(64, 512) * torch.exp(1.5 * gaussian(512, seed=1))
    for weight in (tails, columns):
        assert relative_error(f"higgs_{name}", weight) < 1.15 * normal
        assert relative_error(f"gauss_{name}", weight) > 1.6 * normal


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("higgs_n8p1_g64", 3.25),
        ("higgs_n32p2_g128", 2.5 + 16 / 128),
        ("higgs_n128p2_channel", 3.5 + 16 / 512),
        ("gauss_n256p2_g64", 4.25),
    ],
)
def test_bits_are_counted_in_halves(name, bits):
    assert named(name).bits_per_weight((32, 512)) == bits
    assert named(name).code_bits in (2.5, 3, 3.5, 4)


def test_pairs_need_an_even_width():
    format = named("higgs_n16p2_channel")
    assert format.fits((3, 38))
    assert not format.fits((3, 37))
    with pytest.raises(InvalidArgument, match="does not fit"):
        Rtn().quantize(torch.ones(3, 37), format)


def test_gptq_passes_on_the_errors_of_pairs():
    weight, format = gaussian(32, 256) * 0.02, named("gauss_n32p2_g128")
    x = gaussian(1024, 40, seed=1) @ gaussian(40, 256, seed=2) + 0.1 * gaussian(1024, 256, seed=3)
    gram = x.T @ x / len(x)

    def output_error(quantizer):
        error = quantizer.quantize(weight, format, gram).dequantize() - weight
        return float(((error @ gram) * error).sum())

    assert output_error(Gptq()) < 0.1 * output_error(Rtn())
    assert output_error(Gptq(block_size=3)) == pytest.approx(output_error(Gptq()), rel=0.05)


@pytest.mark.parametrize("name", ["higgs_n8p1_g64", "higgs_n32p2_g128", "gauss_n64p2_channel"])
def test_a_packed_layer_gives_the_product_of_its_weight(name):
    shape, format = (24, 256), named(name)
    quantized = Rtn(clip_steps=0).quantize(gaussian(*shape), format)
    layer = QuantLinear(format, shape, torch.float32)
    table = QuantEmbedding(format, shape, torch.float32)
    for each in (layer, table):
        each.load_state_dict(quantized.tensors(), strict=False)
    x = gaussian(3, 256, seed=1)
    torch.testing.assert_close(layer(x), x @ quantized.dequantize().T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(table(torch.tensor([5])), quantized.dequantize()[[5]])


@pytest.mark.parametrize("fields", [{"size": 32}, {"dimension": 3}, {"group_size": 32}])
def test_fields_out_of_range_are_refused(fields):
    with pytest.raises(InvalidArgument, match=str(next(iter(fields.values())))):
        Gauss(**fields)
