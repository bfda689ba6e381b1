"""HQQ: no group gets worse in the norm it minimises, and no knob leaves its range."""

import pytest
import torch

from bitfront.formats import named
from bitfront.quantizers.hqq import Hqq
from bitfront.quantizers.rtn import Rtn


@pytest.mark.parametrize("name", ["int2_g64", "int4_g32", "int3_g64_sym", "nf3_g64", "nvfp4"])
def test_every_group_has_at_most_the_error_of_its_start(name):
    format = named(name)
    torch.manual_seed(0)
    weight = torch.distributions.StudentT(3.0).sample((32, 256)) * 0.02

    def group_norms(quantizer):
        error = (quantizer.quantize(weight, format).dequantize() - weight).abs() ** 0.7
        return error.reshape(32, -1, format.group_columns).sum(dim=2)

    ours, start = group_norms(Hqq(tolerance=0)), group_norms(Rtn())
    assert (ours <= start * 1.01).all()  # levels of tables are searched at bfloat16 resolution
    assert ours.sum() < 0.99 * start.sum()


@pytest.mark.parametrize("name", ["slim3_g32", "int2x4_g32"])
def test_groups_of_every_width_gain_and_keep_their_zero_points_in_their_own_codes(name):
    format = named(name)
    torch.manual_seed(0)
    weight = torch.distributions.StudentT(3.0).sample((64, 512)) * 0.02

    def norms(quantized):
        error = (quantized.dequantize() - weight).abs() ** 0.7
        return error.reshape(64, -1, 32).sum(dim=2)

    ours, start = Hqq(tolerance=0).quantize(weight, format), Rtn().quantize(weight, format)
    for _, grid, groups in format.split(start.qparams["order"]):
        assert norms(ours)[:, groups].sum() < 0.995 * norms(start)[:, groups].sum()
        zero_point = ours.qparams["zero_point"][:, groups]
        assert zero_point.max() <= 2**grid.num_bits - 1


def test_scaling_the_weight_scales_the_result():
    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(0))
    codes = [Hqq().quantize(weight * size, named("int3_g64")).codes for size in (1.0, 2.0**-6)]
    assert torch.equal(*codes)


def test_zero_points_stay_codes():
    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(0)).exp()
    zero_point = Hqq().quantize(weight, named("int2_g64")).qparams["zero_point"]
    assert (zero_point >= 0).all()
    assert (zero_point <= 3).all()
