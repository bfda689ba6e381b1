"""Float formats against the numbers their papers and specifications print."""

import pytest
import torch

from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.formats.fp4 import Fp4
from bitfront.formats.fp6 import Fp6
from bitfront.formats.mxfp6 import Mxfp6
from bitfront.formats.nf import Nf
from bitfront.quantizers.rtn import Rtn

# QLoRA (arXiv:2305.14314), appendix E
PUBLISHED_NF4 = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
]


def test_nf4_levels_are_the_published_ones():
    assert Nf(4).levels() == pytest.approx(PUBLISHED_NF4, abs=1e-4)


@pytest.mark.parametrize("num_bits", [2, 3, 4])
def test_normal_float_levels_rise_from_minus_one_through_zero_to_one(num_bits):
    levels = Nf(num_bits).levels()
    assert list(levels) == sorted(set(levels))
    assert (levels[0], levels[-1]) == (-1.0, 1.0)
    assert levels.count(0.0) == 1


def test_fp8_levels_are_those_of_the_torch_dtype():
    patterns = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    levels = torch.tensor(named("fp8_e4m3").levels())
    assert torch.equal(levels[~patterns.isnan()], patterns[~patterns.isnan()])


def test_float4_never_gives_minus_zero():
    codes = Fp4().nearest(torch.linspace(-0.3, 0.3, 101))
    assert set(codes.tolist()) == {0, 1, 9}


def test_mxfp4_scale_is_the_least_power_of_two_that_covers_the_group():
    format = named("mxfp4")
    sizes = torch.tensor([[6.0], [6.1], [3.0], [0.75], [2.0**-140], [0.0], [3e38]])
    scale, _ = format.affine(format.qparams(sizes.expand(7, 32)))
    expected = [1.0, 2.0, 0.5, 0.125, 2.0**-126, 2.0**-126, 2.0**126 / 2]
    assert scale.flatten().tolist() == expected


def test_mxfp4_clipped_by_a_quarter_has_the_scale_of_the_specification():
    format = named("mxfp4")
    weight = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    scale, _ = format.affine(format.qparams(weight, clip=0.75))
    rounded_down = 2.0 ** (weight.abs().amax(dim=1).log2().floor() - 2)
    assert torch.equal(scale.flatten(), rounded_down)


def test_nvfp4_group_scales_use_the_whole_range_of_e4m3():
    format = named("nvfp4")
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)) * 1e-6
    qparams = format.qparams(weight)
    assert qparams["scale"].float().max() == 448
    assert qparams["global_scale"] * 448 * 6 == pytest.approx(weight.abs().max().item())


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        (Nf, {"num_bits": 5}),
        (Nf, {"group_size": 16}),
        (Fp4, {"group_size": 16}),
        (Fp6, {"exponent_bits": 4}),
        (Fp6, {"group_size": 16}),
        (Mxfp6, {"exponent_bits": 4}),
    ],
)
def test_fields_out_of_range_are_refused(family, fields):
    with pytest.raises(InvalidArgument, match=str(next(iter(fields.values())))):
        family(**fields)


# OCP Microscaling Formats 1.0, tables 3 and 4: largest, least normal and least subnormal number
@pytest.mark.parametrize(
    ("name", "largest", "normal", "subnormal"),
    [("mxfp6_e2m3", 7.5, 1.0, 0.125), ("mxfp6_e3m2", 28.0, 0.25, 0.0625)],
)
def test_6_bit_floats_have_the_numbers_of_the_specification(name, largest, normal, subnormal):
    levels = named(name).levels()
    assert max(levels) == levels[31] == largest == -levels[63]
    mantissas = 8 if name.endswith("e2m3") else 4
    assert (levels[1], levels[mantissas]) == (subnormal, normal)


def test_mxint8_codes_are_twos_complement_over_64():
    format = named("mxint8")
    weight = torch.tensor([[1.984375, -1.984375, 1.0, -1.0, 1 / 64, -1 / 64, 0.0, 0.0] * 4])
    qparams = format.qparams(weight)
    codes = format.encode(weight, qparams)
    assert qparams["scale"].item() == 127
    assert codes.view(torch.int8)[0, :7].tolist() == [127, -127, 64, -64, 1, -1, 0]
    assert torch.equal(format.decode(codes, qparams), weight)


def test_nvint4_has_less_error_than_nvfp4_on_gaussian_weights_and_more_on_heavy_tails():
    """As arXiv:2510.25602 has it: integers win where a rotation has spread the outliers."""
    gaussian = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    for weight, wins in ((gaussian, True), (gaussian**5, False)):
        error = [
            (Rtn().quantize(weight, named(name)).dequantize() - weight).square().mean()
            for name in ("nvint4", "nvfp4")
        ]
        assert (error[0] < error[1]) == wins
