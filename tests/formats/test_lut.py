"""Tables of rows: k-means against the best there is, weights that count, what a table costs."""

import pytest
import torch

from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.formats._clusters import centres
from bitfront.formats.lut import Lut
from bitfront.models.quant_linear import QuantLinear
from bitfront.quantizers.kmeans import Kmeans
from bitfront.quantizers.rtn import Rtn


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error_of(values, weights, found):
    nearest = (values[..., None] - found[:, None]).square().amin(dim=2)
    return (weights * nearest).sum(dim=1)


def least_error(values, weights, n_centres):
    """Error of the best centres of one row, by dynamic programming over sorted numbers."""
    values, order = values.double().sort()
    weights = weights.double()[order]
    sums = [torch.cat([torch.zeros(1), (weights * values**k).cumsum(0)]) for k in range(3)]
    mass, first, second = ((s[None, :] - s[:, None]) for s in sums)  # of numbers i up to j
    cost = (second - first.square() / mass.clamp(min=1e-300)).triu(1)
    cost = torch.where(torch.ones_like(cost).triu(1) > 0, cost, torch.inf)
    best = cost[0]
    for _ in range(n_centres - 1):
        best = (best[:, None] + cost).amin(dim=0)
    return best[-1]


@pytest.mark.parametrize("n_centres", [4, 16])
def test_centres_of_few_numbers_are_the_best_there_are(n_centres):
    values = gaussian(12, 96) * torch.exp(0.5 * gaussian(12, 96, seed=1))
    weights = torch.rand(12, 96, generator=torch.Generator().manual_seed(2)) ** 3
    found = error_of(values, weights, centres(values, weights, n_centres))
    best = torch.stack([least_error(*row, n_centres) for row in zip(values, weights, strict=True)])
    ratio = found / best
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=1e-4, atol=0)


def test_centres_of_many_numbers_are_near_the_best_there_are():
    values = gaussian(3, 600) * torch.exp(0.5 * gaussian(3, 600, seed=1))
    weights = torch.rand(3, 600, generator=torch.Generator().manual_seed(2)) ** 3
    found = error_of(values, weights, centres(values, weights, 8))
    best = torch.stack([least_error(*row, 8) for row in zip(values, weights, strict=True)])
    assert (found < 1.01 * best).all()


def test_many_gaussian_numbers_get_the_levels_of_lloyd_and_max():
    """Max 1960, table I, for 4 levels: 0.4528 and 1.510."""
    found = centres(gaussian(1, 1 << 18), torch.ones(1), 4)[0]
    assert found.tolist() == pytest.approx([-1.510, -0.4528, 0.4528, 1.510], abs=0.02)


@pytest.mark.parametrize("case", ["equal", "two numbers", "weightless", "huge", "few"])
def test_degenerate_rows_have_finite_rising_centres_within_their_range(case):
    values, weights = gaussian(4, 64), torch.ones(64)
    if case == "equal":
        values = torch.full((4, 64), 0.3)
    elif case == "two numbers":
        values = values.sign()
    elif case == "weightless":
        weights = torch.zeros(64)
    elif case == "huge":
        values[:, 5] = 3e38
    else:
        values, weights = values[:, :3], weights[:3]
    found = centres(values, weights, 16)
    assert (found.diff(dim=1) >= 0).all()
    assert (found >= values.amin(dim=1, keepdim=True)).all()
    assert (found <= values.amax(dim=1, keepdim=True)).all()
    if case != "huge":
        assert error_of(values, torch.ones(()), found).max() < 20


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_squeezellms_claim_weighted_tables_beat_even_levels(bits):
    """At no more than 0.4 % more bytes, on weights and inputs with tails."""
    weight = gaussian(16, 4096) * torch.exp(0.5 * gaussian(16, 4096, seed=1))
    gram = torch.diag(torch.exp(gaussian(4096, seed=2)))

    def error(quantizer, name):
        off = quantizer.quantize(weight, named(name), gram).dequantize() - weight
        return (off.square() * gram.diagonal()).sum()

    table, even = f"lut{bits}_channel", f"int{bits}_channel"
    assert error(Kmeans(), table) < 0.65 * error(Rtn(), even)
    assert named(table).nbytes(weight.shape) <= 1.02 * named(even).nbytes(weight.shape)


def test_any4s_claim_a_fitted_table_beats_fixed_ones():
    weight = gaussian(32, 4096) * torch.exp(0.3 * gaussian(32, 1, seed=1))
    errors = {
        name: (Rtn().quantize(weight, named(name)).dequantize() - weight).square().sum()
        for name in ("lut4_g128", "nf4_g128", "int4_g128", "fp4_g128")
    }
    assert min(errors, key=errors.get) == "lut4_g128"


@pytest.mark.parametrize(
    ("name", "bits"),
    [("lut4_channel", 4 + 16 * 16 / 512), ("lut3_g128", 3 + 16 / 128 + 8 * 16 / 512)],
)
def test_bits_count_the_tables(name, bits):
    assert named(name).bits_per_weight((64, 512)) == bits


@pytest.mark.parametrize("name", ["lut2_channel", "lut4_g64"])
def test_a_packed_layer_multiplies_by_its_table(name):
    shape, format = (24, 192), named(name)
    layer = QuantLinear(format, shape, torch.float32)
    quantized = Rtn().quantize(gaussian(*shape), format)
    layer.load_state_dict(quantized.tensors(), strict=False)
    x = gaussian(3, 192, seed=1)
    torch.testing.assert_close(layer(x), x @ quantized.dequantize().T)


@pytest.mark.parametrize("fields", [{"num_bits": 5}, {"group_size": 32}])
def test_fields_out_of_range_are_refused(fields):
    with pytest.raises(InvalidArgument, match=str(next(iter(fields.values())))):
        Lut(**fields)
