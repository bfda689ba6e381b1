"""What every quantizer promises, for every family of formats."""

import pickle

import cases
import pytest
import torch

from bitfront.errors import InvalidArgument, NonFinite
from bitfront.formats import catalogue, named
from bitfront.plugins import Choice
from bitfront.quantizers import QUANTIZERS
from bitfront.quantizers.gptaq import Gptaq

QUANTIZER_NAMES = QUANTIZERS.names()
FORMAT_NAMES = (
    "bf16",
    "int2_g64",
    "int3_g64",
    "int4_channel",
    "int5_g32_sym",
    "int8_g128",
    "nf3_g64",
    "fp4_g32",
    "fp8_e4m3",
    "mxfp4",
    "mxfp6_e3m2",
    "mxint8",
    "nvfp4",
    "nvint4",
    "int3_g64_had",
    "nvfp4_had",
    "bit_planes2_g64",
    "binary_salient20",
    "int3_g64_cols",
    "int3_channel_sparse10",
    "ternary_g64",
    "trit_planes_g128",
    "lut3_channel",
    "lut4_g64",
    "higgs_n8p1_g64",
    "slim3_g32",
    "int2x4_g64",
    "higgs_n32p2_g128",
)
SHAPE = (48, 256)


@pytest.fixture(scope="module")
def weight():
    """Rows of different size with tails heavier than Gaussian."""
    generator = torch.Generator().manual_seed(1)
    spread = torch.exp(0.5 * torch.randn(SHAPE, generator=generator))
    size = torch.empty(SHAPE[0], 1).exponential_(generator=generator) + 0.3
    return torch.randn(SHAPE, generator=generator) * spread * size * 0.02


@pytest.fixture(scope="module")
def hessian():
    """Strongly correlated inputs of very different power."""
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(1024, 64, generator=generator) @ torch.randn(64, 256, generator=generator)
    inputs += 0.3 * torch.randn(1024, 256, generator=generator)
    inputs *= torch.rand(256, generator=generator).square()
    return inputs.T @ inputs / len(inputs)


def build(text):
    choice = Choice.parse(text)
    return QUANTIZERS.build(choice.name, choice.params)


def measured(quantity, format, values, weight, hessian):
    """In the basis that the format rounds in; squares and products are the same in any."""
    error, rotation = values - weight, format.rotation(weight.shape[1])
    if rotation is not None:
        error, hessian = rotation.turn(error), rotation.gram(hessian)
    return {
        "squared_error": error.square().sum(),
        "mean_abs_error": error.abs().mean(),
        "weighted_error": (error.square() * hessian.diagonal()).sum(),
        "output_error": ((error @ hessian) * error).sum(),
    }[quantity].item()


@pytest.mark.parametrize("format_name", FORMAT_NAMES)
@pytest.mark.parametrize("name", QUANTIZER_NAMES)
def test_same_inputs_same_codes_and_inputs_untouched(name, format_name, weight, hessian):
    format, given, given_hessian = named(format_name), weight.clone(), hessian.clone()
    first, second = (build(name).quantize(given, format, given_hessian) for _ in range(2))
    assert torch.equal(first.codes, second.codes)
    assert torch.equal(first.dequantize(), second.dequantize())
    assert torch.equal(given, weight)
    assert torch.equal(given_hessian, hessian)


@pytest.mark.parametrize("format_name", FORMAT_NAMES)
@pytest.mark.parametrize("name", QUANTIZER_NAMES)
def test_tensors_are_as_the_format_promises(name, format_name, weight, hessian):
    format = named(format_name)
    quantized = build(name).quantize(weight, format, hessian)
    assert quantized.format == format
    assert quantized.codes.shape == format.codes_shape(SHAPE)
    tensors = quantized.tensors()
    stored = {key: (tuple(t.shape), str(t.dtype)) for key, t in tensors.items()}
    promised = {key: (t.shape, f"torch.{t.dtype}") for key, t in format.stored(SHAPE).items()}
    assert stored == promised
    assert torch.equal(format.decode_stored(tensors, SHAPE), quantized.dequantize())


@pytest.mark.parametrize("format_name", FORMAT_NAMES)
@pytest.mark.parametrize("name", QUANTIZER_NAMES)
def test_the_claim_holds_and_is_never_reversed(name, format_name, weight, hessian):
    claim, format = cases.QUANTIZERS[name], named(format_name)
    ours, others = (
        measured(
            claim.quantity,
            format,
            build(text).quantize(weight, format, hessian).dequantize(),
            weight,
            hessian,
        )
        for text in (name, claim.other)
    )
    assert ours <= others * (1 + 1e-5)
    if format_name == claim.format:
        assert ours <= others * claim.ratio


@pytest.mark.parametrize("name", QUANTIZER_NAMES)
def test_bf16_is_the_weight_itself(name, weight, hessian):
    values = build(name).quantize(weight, named("bf16"), hessian).dequantize()
    assert torch.equal(values, weight.bfloat16().float())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", QUANTIZER_NAMES)
def test_a_weight_that_is_not_finite_is_refused(name, bad, weight, hessian):
    broken = weight.clone()
    broken[3, 7] = bad
    with pytest.raises(NonFinite, match=r"\(48, 256\) holds 1 NaN or infinite"):
        build(name).quantize(broken, named("int4_g64"), hessian)


@pytest.mark.parametrize("name", QUANTIZER_NAMES)
def test_a_format_that_does_not_fit_is_refused(name, hessian):
    with pytest.raises(InvalidArgument, match="whole groups of 64"):
        build(name).quantize(torch.ones(2, 96), named("int4_g64"), hessian[:96, :96])


def hard(format):
    """Weights and inputs `[n_tokens, n_columns]` that the format fits, narrow for speed."""
    step = format.group_columns or 24
    n = next(step * k for k in range(1, 9) if format.fits((3, step * k)))
    generator = torch.Generator().manual_seed(0)
    tails = torch.randn(3, n, generator=generator) / torch.randn(3, n, generator=generator) * 0.02
    tails[:, : n // 3] = 0  # columns without weight
    tails[1] = 0
    inputs = torch.randn(40, n, generator=generator)
    inputs[:, n // 2 : n // 2 + 5] = 0  # columns without input
    yield tails, inputs
    widths = [width for width in (1, 37) if format.fits((1, width))] or [n]
    for width in widths:
        row = torch.randn(1, width, generator=generator) * 0.02
        yield row, torch.randn(64, width, generator=generator)


def statistics(quantizer, weight, gram):
    """What a quantizer takes: inputs as they are (of groups of rows), shifted too, or gradients."""
    if isinstance(quantizer, Gptaq):
        both = torch.stack([gram, 0.1 * gram.roll(1, dims=-2)])
        return both if gram.ndim == 3 else both[:, None]
    return weight.square() if quantizer.needs_fisher else gram


def cost(quantizer, error, inputs, given):
    """What an error costs by what the quantizer was given."""
    return ((given * error.square()) if quantizer.needs_fisher else (inputs @ error.T) ** 2).sum()


@pytest.mark.parametrize("format_name", catalogue())
def test_every_quantizer_in_every_format_on_hard_weights(format_name):
    """Heavy tails, columns of zeros, columns without input, a row of zeros, one row, odd widths."""
    format = named(format_name)
    for weight, inputs in hard(format):
        for quantizer in map(build, (*QUANTIZER_NAMES, "kmeans:by=gradients")):
            given = statistics(quantizer, weight, inputs.T @ inputs / len(inputs))
            quantized = quantizer.quantize(weight, format, given)
            values, tensors = quantized.dequantize(), quantized.tensors()
            assert values.isfinite().all(), quantizer
            assert all(t.float().isfinite().all() for t in tensors.values()), quantizer
            stored = {key: (tuple(t.shape), str(t.dtype)) for key, t in tensors.items()}
            promised = format.stored(tuple(weight.shape)).items()
            assert stored == {key: (t.shape, f"torch.{t.dtype}") for key, t in promised}
            assert torch.equal(format.decode_stored(tensors, tuple(weight.shape)), values)
            if len(weight) > 1:  # grids without a zero have the smallest scale instead
                assert values[1].abs().max() <= 2.0**-21, quantizer
            else:
                lost, whole = (cost(quantizer, x, inputs, given) for x in (values - weight, weight))
                assert lost < whole or not format.num_bits, quantizer


@pytest.mark.parametrize("format_name", ["int3_channel_had", "lut3_channel", "int4_channel"])
@pytest.mark.parametrize("name", QUANTIZER_NAMES)
def test_odd_widths_and_one_row(name, format_name, weight, hessian):
    format, own = named(format_name), weight[:1, :37]
    values = build(name).quantize(own, format, hessian[:37, :37].contiguous()).dequantize()
    assert (values - own).norm() < 0.5 * own.norm()


@pytest.mark.parametrize("name", QUANTIZER_NAMES)
def test_views_and_half_precision_are_quantized_as_float32(name, weight, hessian):
    quantizer, format = build(name), named("int4_g64")
    half = weight.bfloat16()
    expected = quantizer.quantize(half.float(), format, hessian).codes
    assert torch.equal(quantizer.quantize(half, format, hessian).codes, expected)
    view = half.float().T.contiguous().T
    assert torch.equal(quantizer.quantize(view, format, hessian).codes, expected)


@pytest.mark.parametrize("name", QUANTIZER_NAMES)
def test_a_quantizer_pickles(name):
    quantizer = build(name)
    assert pickle.loads(pickle.dumps(quantizer)) == quantizer


@pytest.mark.parametrize(
    "text",
    [
        "rtn:clip_steps=-1",
        "rtn:min_clip=0",
        "rtn:min_clip=1",
        "hqq:norm=0",
        "hqq:norm=1.5",
        "hqq:beta=0",
        "hqq:kappa=0.9",
        "hqq:n_iterations=0",
        "hqq:tolerance=-1",
        "awq:n_powers=0",
        "gptaq:ridge=0",
        "gptaq:share=1.5",
        "gptq:damping=0",
        "gptq:damping=11",
        "gptq:block_size=0",
        "gptq:clip_steps=-1",
    ],
)
def test_hyperparameters_out_of_range_are_refused(text):
    field, value = text.split(":")[1].split("=")
    with pytest.raises(InvalidArgument, match=rf"{field}={value}"):
        build(text)
