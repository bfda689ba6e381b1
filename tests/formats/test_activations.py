"""What every format of inputs promises: tokens for themselves, nothing but numbers, its error."""

import cases
import pytest
import torch

from bitfront import formats
from bitfront.errors import InvalidArgument, UnknownPlugin
from bitfront.formats import named
from bitfront.formats._activations import ACTIVATIONS
from bitfront.formats.base import Format
from bitfront.formats.weight_activation import WeightActivation
from bitfront.kernels.weights import rounded_inputs

every_activation = pytest.mark.parametrize("name", ACTIVATIONS)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def hostile():
    wild, spread = torch.distributions.Cauchy(0.0, 1.0), drawn(6, 256)
    torch.manual_seed(0)
    one, zeros = spread.clone(), spread.clone()
    one[:, 70] *= 1e4
    zeros[2:4] = 0
    return {
        "zero": torch.zeros(6, 256), "zero_tokens": zeros, "heavy_tails": wild.sample((6, 256)),
        "one_channel": one, "negative": -spread.abs(), "constant": torch.full((6, 256), -0.3),
        "tiny": spread * 1e-30, "subnormal": spread * 1e-40, "huge": spread * 1e30,
        "largest": torch.sign(spread) * torch.finfo(torch.float32).max,
    }  # fmt: skip


HOSTILE = hostile()


@every_activation
def test_error_of_gaussian_inputs(name):
    inputs = drawn(256, 512)
    error = ACTIVATIONS[name].rounded(inputs) - inputs
    ratio = float(10 * torch.log10(inputs.square().sum() / error.square().sum()))
    assert cases.ACTIVATIONS[name] <= ratio <= cases.ACTIVATIONS[name] + 0.3


@every_activation
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_inputs_stay_finite_and_in_range(name, case):
    inputs, activation = HOSTILE[case], ACTIVATIONS[name]
    rounded = activation.rounded(inputs)
    assert rounded.isfinite().all()
    largest = inputs.abs().amax(dim=1, keepdim=True)
    assert (rounded.abs() <= 1.15 * largest + 2.0**-17).all()
    assert not rounded[largest[:, 0] == 0].any()


@every_activation
@pytest.mark.parametrize("exponent", [-60, 22, 80])
def test_scales_neither_saturate_nor_vanish(name, exponent):
    """Float16 ends at 65,504: int8 inputs above 8 million were cut, int4 from 524,000 on."""
    inputs, activation = drawn(8, 256), ACTIVATIONS[name]
    expected = activation.rounded(inputs) * 2.0**exponent
    torch.testing.assert_close(
        activation.rounded(inputs * 2.0**exponent), expected, rtol=1e-3, atol=0
    )


@every_activation
def test_a_token_that_is_not_finite_stays_one(name):
    inputs = drawn(3, 256)
    inputs[0, 5], inputs[1, 70] = torch.inf, torch.nan
    rounded = ACTIVATIONS[name].rounded(inputs)
    assert rounded.isfinite().all(dim=1).tolist() == [False, False, True]


@every_activation
def test_a_token_is_rounded_as_if_it_were_alone(name):
    """Whatever the batch holds: small tokens beside large ones, none of them seen."""
    inputs = torch.cat([drawn(3, 128), 1e3 * drawn(2, 128, seed=1), torch.zeros(1, 128)])
    together = ACTIVATIONS[name].rounded(inputs.reshape(2, 3, 128)).reshape(6, 128)
    alone = torch.cat([ACTIVATIONS[name].rounded(row[None]) for row in inputs])
    assert torch.equal(together, alone)


@every_activation
def test_shapes_dtypes_and_inputs_are_as_they_were(name):
    activation = ACTIVATIONS[name]
    for dtype in (torch.float32, torch.bfloat16):
        inputs = drawn(2, 3, 128).to(dtype)
        before = inputs.clone()
        rounded = activation.rounded(inputs)
        assert (rounded.dtype, rounded.shape) == (dtype, inputs.shape)
        assert torch.equal(inputs, before)
        assert not torch.equal(rounded, inputs)
    assert activation.rounded(torch.zeros(0, 128)).shape == (0, 128)
    assert activation.rounded(drawn(128)).shape == (128,)


@every_activation
def test_only_whole_groups_fit(name):
    activation = ACTIVATIONS[name]
    size = activation.grid.group_columns
    assert activation.fits(37) is (size is None)
    assert activation.fits(3 * (size or 37))
    if size is None:  # odd widths
        assert activation.rounded(drawn(4, 37)).isfinite().all()


@pytest.mark.parametrize("name", ["int8", "int4_g32", "int8_asym", "fp8", "mxfp4"])
def test_the_numbers_are_those_of_a_weight_of_the_same_rows(name):
    inputs, grid = drawn(5, 64), ACTIVATIONS[name].grid
    qparams = grid.qparams(inputs)
    expected = grid.decode(grid.encode(inputs, qparams), qparams)
    assert torch.equal(ACTIVATIONS[name].rounded(inputs), expected)


def test_any_scaled_weight_format_goes_with_any_format_of_inputs_by_name():
    weights = [f for f in formats.catalogue().values() if f.input_format is None]
    for weight in weights:
        for inputs in ACTIVATIONS.values():
            name = f"{weight.name}_a{inputs.name}"
            if not weight.scaled:
                with pytest.raises(UnknownPlugin, match="int4_g64_aint8"):
                    named(name)
                continue
            pair = named(name)
            assert (pair.name, pair.weight_format, pair.input_format) == (name, weight, inputs)
            assert len(name) <= 48  # what a request may name
    with pytest.raises(UnknownPlugin, match="in int8, int8_asym, int8_g32"):
        named("int4_g64_aint9")
    with pytest.raises(UnknownPlugin):
        named("int4_g64_aint8_aint8")
    with pytest.raises(InvalidArgument, match="bf16 cannot be paired with inputs in int8"):
        WeightActivation(named("bf16"), ACTIVATIONS["int8"])


def test_a_pair_answers_as_the_format_of_its_weight_does():
    """All that `Format` has; what is new there must be thought of here."""
    own = {"name", "catalogue", "weight_format", "input_format", "fits"}
    public = {name for name in vars(Format) if not name.startswith("_")}
    assert public - set(vars(WeightActivation)) == set()
    for name in ("int3_g32_cols", "int4_g64_had", "int3_channel_sparse5", "mxfp4"):
        weight, pair = named(name), named(f"{name}_aint8")
        for each in ("num_bits", "code_bits", "scaled", "learned", "group_columns", "base"):
            assert getattr(pair, each) == getattr(weight, each)
        for each in ("stored", "nbytes", "parts", "bits_per_weight"):
            assert getattr(pair, each)((64, 128)) == getattr(weight, each)((64, 128))
        assert pair.fits((64, 128))
    assert own <= set(vars(WeightActivation))
    assert not named("int4_g64_aint8_g128").fits((64, 64 * 3))


def test_inputs_are_turned_before_they_are_rounded_and_scaled_before_too():
    """QuaRot, MR-GPTQ: what is rounded is what meets the stored weight."""
    inputs = drawn(16, 256)
    inputs[:, 3] *= 50
    pair = named("int4_g64_had_aint4")
    rotation = pair.rotation(256)
    expected = rotation.undo(ACTIVATIONS["int4"].rounded(rotation.turn(inputs)))
    assert torch.equal(rounded_inputs(inputs, pair, None), expected)
    turned = (expected - inputs).square().mean()
    plain = (rounded_inputs(inputs, named("int4_g64_aint4"), None) - inputs).square().mean()
    assert turned < 0.3 * plain
    scale = torch.tensor([1.0, 4.0]).repeat(128)
    scaled = rounded_inputs(inputs, named("int4_g64_cols_aint4"), scale)
    assert torch.equal(scaled, ACTIVATIONS["int4"].rounded(inputs * scale) / scale)
    assert rounded_inputs(inputs, named("int4_g64_had"), None) is inputs


def test_a_rotation_helps_mxfp4_and_hurts_nvfp4_on_heavy_tailed_inputs():
    """MR-GPTQ, section 3: blocks of 16 with fine scales hold tails better than a rotation does."""
    inputs = torch.distributions.Laplace(0.0, 1.0).icdf(
        torch.rand(256, 512, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
    )

    def error(name):
        return float((rounded_inputs(inputs, named(name), None) - inputs).square().mean())

    assert error("mxfp4_had_amxfp4") < 0.95 * error("mxfp4_amxfp4")
    assert error("nvfp4_had_anvfp4") > 1.02 * error("nvfp4_anvfp4")


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_largest_numbers_of_a_dtype_stay_finite(name, dtype):
    top = torch.finfo(dtype).max
    inputs = torch.randn(2, 128, generator=torch.Generator().manual_seed(0)).to(dtype)
    inputs[0, 5], inputs[1, 9] = top, -top * 0.93
    assert ACTIVATIONS[name].rounded(inputs).isfinite().all()
