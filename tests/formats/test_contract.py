"""What every format of the catalogue promises."""

import pickle
import subprocess
import sys

import cases
import pytest
import safetensors.torch
import torch

from bitfront.errors import InvalidArgument, UnknownPlugin
from bitfront.formats import FORMATS, catalogue, named
from bitfront.quantizers.rtn import Rtn

NAMES = tuple(catalogue())
LEVELLED = tuple(name for name in NAMES if catalogue()[name].levels())
CLIPPED = tuple(
    name for name in NAMES if catalogue()[name].scaled and not catalogue()[name].learned
)
STEPPED = tuple(  # whose levels cover the range of a group
    name
    for name in NAMES
    if name == "bf16" or (name in CLIPPED and name in LEVELLED and not name.startswith("gauss"))
    if named(name).base.name == name
)
SHAPES = [
    *((1, 128), (3, 256), (5, 640), (7, 37), (4, 48)),
    *((16, 9), (1, 25), (8, 27), (3, 147), (6, 1)),  # convolutions, depthwise and of pixels
]


def gaussian(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.02


def degenerate():
    spread = gaussian((6, 256))
    heavy = torch.distributions.Cauchy(0.0, 1.0)
    torch.manual_seed(0)
    one_outlier = spread.clone()
    one_outlier[2, 70] = 1e4
    some_zero = spread.clone()
    some_zero[:, :130] = 0
    return {
        "zero": torch.zeros(6, 256),
        "constant": torch.full((6, 256), 0.3),
        "negative": -spread.abs(),
        "constant_columns": spread[:1, :].expand(6, 256).contiguous(),
        "zero_columns": some_zero,
        "heavy_tails": heavy.sample((6, 256)),
        "one_outlier": one_outlier,
        "tiny": spread * 1e-30,
        "subnormal": spread * 1e-40,
        "huge": spread * 1e30,
        "largest": torch.sign(spread) * torch.finfo(torch.float32).max,
    }


DEGENERATE = degenerate()


@pytest.mark.parametrize("name", NAMES)
def test_stored_tensors_have_the_promised_names_shapes_dtypes_and_bytes(name):
    format = named(name)
    fitting = [shape for shape in SHAPES if format.fits(shape)]
    assert fitting
    for shape in fitting:
        tensors = Rtn(clip_steps=0).quantize(gaussian(shape), format).tensors()
        promised = format.stored(shape)
        assert list(tensors) == list(promised)
        for key, tensor in tensors.items():
            assert tuple(tensor.shape) == promised[key].shape
            assert str(tensor.dtype) == f"torch.{promised[key].dtype}"
        written = safetensors.torch.save(tensors)
        header = 8 + int.from_bytes(written[:8], "little")
        assert len(written) - header == format.nbytes(shape)


@pytest.mark.parametrize("name", NAMES)
def test_stored_tensors_decode_to_the_quantized_weight(name):
    format = named(name)
    for shape in filter(format.fits, SHAPES):
        quantized = Rtn(clip_steps=2).quantize(gaussian(shape), format)
        read = safetensors.torch.load(safetensors.torch.save(quantized.tensors()))
        assert torch.equal(format.decode_stored(read, shape), quantized.dequantize())


@pytest.mark.parametrize("name", NAMES)
def test_encoding_decoded_values_changes_nothing(name):
    format = named(name)
    weight = gaussian((4, 256))
    qparams = format.qparams(weight, clip=0.8)
    values = format.decode(format.encode(weight, qparams), qparams)
    assert torch.equal(format.decode(format.encode(values, qparams), qparams), values)


@pytest.mark.parametrize("name", LEVELLED)
def test_nearest_is_the_nearest_level(name):
    format = named(name)
    levels = torch.tensor(format.levels())
    span = levels.abs().max() * 1.3
    scaled = torch.cat([torch.linspace(-span, span, 4001), levels, torch.zeros(1)])
    least = (scaled[:, None] - levels).abs().amin(dim=1)
    off = (scaled - format.values(format.nearest(scaled))).abs()
    torch.testing.assert_close(off, least, rtol=0, atol=1e-6)
    off_fast = (scaled - format.rounded(scaled)).abs()
    assert (off_fast <= least + 2**-7 * scaled.abs()).all()


@pytest.mark.parametrize("name", LEVELLED)
def test_values_are_the_levels_of_the_codes(name):
    format = named(name)
    levels = torch.tensor(format.levels())
    values = format.values(torch.arange(len(levels), dtype=torch.uint8))
    assert 2 ** (format.num_bits - 1) < len(levels) <= 2**format.num_bits
    assert torch.equal(values[~values.isnan()], levels[~values.isnan()])


@pytest.mark.parametrize("name", CLIPPED)
def test_each_group_can_have_its_own_clip(name):
    format = named(name)
    weight = gaussian((4, 256))
    scale, _ = format.affine(format.qparams(weight))
    clip = torch.where(
        torch.rand(scale.shape, generator=torch.Generator().manual_seed(3)) < 0.5, 1.0, 0.5
    )
    mixed = format.affine(format.qparams(weight, clip))
    for value in (1.0, 0.5):
        whole = format.affine(format.qparams(weight, value))
        for part, of_whole in zip(mixed, whole, strict=True):
            if part is not None:
                assert torch.equal(part[clip == value], of_whole[clip == value])
    smaller, _ = format.affine(format.qparams(weight, 0.5))
    torch.testing.assert_close(smaller, scale / 2, rtol=0.1, atol=0)


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", NAMES)
def test_degenerate_weights_stay_finite_and_in_range(name, case):
    format, weight = named(name), DEGENERATE[case]
    quantized = Rtn(clip_steps=2).quantize(weight, format)
    assert all(t.float().isfinite().all() for t in quantized.qparams.values())
    values = quantized.dequantize()
    assert values.isfinite().all()
    if format.rotation(256) is None and not name.startswith("gauss"):
        assert values.abs().max() <= weight.abs().max() * 1.2 + 2.0**-24 * 200
    else:  # what is turned back, or fits on the whole, keeps its length
        length = weight.double().norm() * 1.2 + 2.0**-24 * 200 * 16
        assert values.double().norm() <= length
    if case == "zero":  # grids without a zero have the smallest scale instead
        assert values.abs().max() <= (
            2.0**-21 if name.startswith(("gauss", "higgs", "sign")) else 0
        )


@pytest.mark.parametrize("name", STEPPED)
def test_ordinary_weights_lose_at_most_half_a_step(name):
    format = named(name)
    weight = gaussian((4, 256))
    qparams = format.qparams(weight)
    scale, _ = format.affine(qparams)
    rising = torch.tensor(sorted(format.levels()))
    widest = rising.diff().max() if format.scaled else 2**-7 * weight.abs().max()
    error = (format.decode(format.encode(weight, qparams), qparams) - weight).abs()
    steps = error.reshape(*scale.shape, -1) / scale.abs()[..., None]
    overshoot = 1.0 if name.endswith("_sym") else 0.5  # the extreme of the other sign may clip
    if name == "nvint4":  # and a scale of 3 bits is up to half a step of the extreme lower
        overshoot = 1.5
    assert steps.max() <= widest * overshoot * 1.05 + 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_a_format_pickles_and_is_found_by_its_name(name):
    format = named(name)
    assert pickle.loads(pickle.dumps(format)) == format == catalogue()[name]
    assert format.name == name == str(format)


def test_every_family_gives_names_of_its_own():
    offered = [f for family in FORMATS.names() for f in FORMATS.load(family).catalogue()]
    assert len(offered) == len(catalogue()) == len({f.name for f in offered})


@pytest.mark.parametrize("name", NAMES)
def test_formats_fit_whole_groups_only(name):
    format = named(name)
    if format.group_columns is None:
        assert format.fits((3, 37 * format.columns_per_code))
    else:
        whole = format.group_columns * (4 if name.startswith("int2x4") else 3)
        assert format.fits((3, whole))
        assert not format.fits((3, whole + 16 // 2))
        with pytest.raises(InvalidArgument, match="does not fit"):
            Rtn().quantize(torch.ones(3, format.group_columns + 1), format)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("int4_g64", 4.5),
        ("int4_g64_sym", 4.25),
        ("int3_g128", 3.25),
        ("int2_g32_sym", 2.5),
        ("int4_channel", 4 + 32 / 512),
        ("int4_channel_sym", 4 + 16 / 512),
        ("nf3_g128", 3.125),
        ("fp4_g32", 4.5),
        ("fp8_e4m3", 8 + 32 / 512),
        ("fp6_e2m3_g64", 6.25),
        ("mxfp4", 4.25),
        ("mxfp6_e3m2", 6.25),
        ("mxfp8_e4m3", 8.25),
        ("mxint8", 8.25),
        ("nvfp4", 4.5 + 32 / (256 * 512)),
        ("nvint4", 4.5 + 32 / (256 * 512)),
        ("int3_channel_sparse5", 3 + 32 / 512 + 3 * 32 / 512),
        ("int4_g64_cols", 4.5 + 8 / 256),
        ("binary_salient20", (256 * (96 * 4 + 416 + 64) + 512) / (256 * 512)),
        ("ternary_g128", 8 * 103 / 512 + 0.125),
        ("trit_planes_g64", 8 * 2 * 103 / 512 + 0.5),
        ("bit_planes2_g128", 2 + 3 * 16 / 128),
        ("bf16", 16.0),
        ("sign_g64", 1.25),
        ("sign_channel", 1 + 16 / 512),
        ("zero", 0.0),
    ],
)
def test_bits_per_weight_count_scales_and_zero_points(name, bits):
    assert named(name).bits_per_weight((256, 512)) == bits


CLAIMS = [
    (name, least) for claim in cases.FORMATS.values() for name, least in claim.at_least.items()
]


@pytest.mark.parametrize(("name", "least"), CLAIMS)
def test_signal_to_error_ratio_on_gaussian_weights(name, least):
    weight = gaussian((256, 512))
    error = Rtn().quantize(weight, named(name)).dequantize() - weight
    assert 10 * torch.log10(weight.square().sum() / error.square().sum()) >= least


@pytest.mark.parametrize("suffix", ["g32", "g64", "g128", "channel", "g64_sym", "channel_sym"])
def test_each_bit_lowers_the_error_about_fourfold(suffix):
    weight = gaussian((64, 512))
    errors = [
        (Rtn().quantize(weight, named(f"int{b}_{suffix}")).dequantize() - weight).square().mean()
        for b in range(2, 9)
    ]
    ratios = torch.tensor(errors[:-1]) / torch.tensor(errors[1:])
    assert (ratios > 2.2).all()
    assert (ratios < 5).all()


def test_an_unknown_name_guesses_and_says_what_lists_all():
    with pytest.raises(UnknownPlugin, match=r"Did you mean 'int4_g64'\?.*too: int4_") as error:
        named("int4_g46")
    assert f"`bitfront plugins` lists all {len(catalogue())}" in str(error.value)
    assert len(str(error.value)) < 400


def test_formats_import_without_torch():
    code = "import sys, bitfront.formats as f; f.catalogue(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
