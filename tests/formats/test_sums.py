"""Grids fitted to each group: never behind the fixed grids that they contain."""

import pytest
import torch

from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.formats.bit_planes import BitPlanes
from bitfront.formats.trit_planes import TritPlanes
from bitfront.quantizers.rtn import Rtn


def heavy(*shape):
    torch.manual_seed(0)
    return torch.distributions.StudentT(4.0).sample(shape) * 0.02


def error(weight, name, importance=None):
    format = named(name)
    if importance is None:
        values = Rtn().quantize(weight, format).dequantize()
    else:
        qparams = format.qparams(weight, importance=importance)
        values = format.decode(format.encode(weight, qparams), qparams)
        return ((values - weight).square() * importance).sum()
    return (values - weight).square().sum()


@pytest.mark.parametrize("bits", [2, 3])
@pytest.mark.parametrize("group", [64, 128])
def test_a_variable_grid_beats_the_even_one_of_its_bits_and_group(bits, group):
    """arXiv:2602.04163, section 4: the even grid is one of its own."""
    weight = heavy(32, 256)
    ours, even = (error(weight, f"{n}{bits}_g{group}") for n in ("bit_planes", "int"))
    assert ours < 0.98 * even


def test_two_trit_planes_beat_three_bits_in_less_room():
    """arXiv:2509.16989, table 1: ahead of 3-bit methods."""
    weight = heavy(32, 256)
    trits, even = named("trit_planes_g128"), named("int3_g64")
    assert trits.bits_per_weight((4096, 4096)) < even.bits_per_weight((4096, 4096))
    assert error(weight, trits.name) < error(weight, even.name)


@pytest.mark.parametrize("name", ["trit_planes_g64", "bit_planes3_g64"])
def test_the_fit_counts_columns_by_their_importance(name):
    weight, importance = heavy(16, 128), torch.rand(128).square()
    plain = named(name).qparams(weight)
    values = named(name).decode(named(name).encode(weight, plain), plain)
    unweighted = ((values - weight).square() * importance).sum()
    assert error(weight, name, importance) < 0.99 * unweighted


@pytest.mark.parametrize("name", ["trit_planes_g64", "bit_planes2_g64"])
def test_levels_of_a_group_are_sums_of_its_coefficients(name):
    format, weight = named(name), heavy(3, 128)
    qparams = format.qparams(weight)
    codes = format.encode(weight, qparams)
    digits = torch.tensor(format.digits())[codes.long()]
    coefficients = qparams["coefficients"].float().reshape(3, 2, -1).repeat_interleave(64, dim=1)
    values = (digits * coefficients).sum(dim=2)
    torch.testing.assert_close(format.decode(codes, qparams), values)
    again = format.unpack(format.pack(codes, qparams), (3, 128))[0]
    assert torch.equal(again, codes)


def test_groups_of_few_distinct_numbers_are_exact():
    weight = torch.tensor([[-0.5, 0.25, 1.0, 1.75] * 16])
    values = Rtn().quantize(weight, named("bit_planes2_g64")).dequantize()
    torch.testing.assert_close(values, weight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        (TritPlanes, {"group_size": 32}),
        (BitPlanes, {"group_size": 32}),
        (BitPlanes, {"num_bits": 5}),
    ],
)
def test_fields_out_of_range_are_refused(family, fields):
    with pytest.raises(InvalidArgument, match=str(next(iter(fields.values())))):
        family(**fields)
