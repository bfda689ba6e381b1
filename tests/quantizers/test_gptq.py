"""GPTQ: the blocked loop against the plain one, and Hessians as calibration really gives them."""

import pytest
import torch

from bitfront.errors import InvalidArgument, NonFinite
from bitfront.formats import named
from bitfront.quantizers.gptq import Gptq
from bitfront.quantizers.rtn import Rtn


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gram(n_tokens, n_columns, seed=0):
    inputs = gaussian(n_tokens, n_columns // 2, seed=seed) @ gaussian(n_columns // 2, n_columns)
    inputs += gaussian(n_tokens, n_columns, seed=seed + 1)
    return inputs.T @ inputs / n_tokens


def output_error(values, weight, hessian):
    error = values - weight
    return ((error @ hessian) * error).sum().item()


def plain_gptq(weight, format, hessian, damping):
    """Column by column in order, removing each column from the inverse Hessian (OBQ, float64)."""
    qparams = format.qparams(weight)
    scale, zero_point = format.affine(qparams)
    size = weight.shape[1] // scale.shape[1]
    weight = weight.double()
    hessian = hessian.double() + damping * hessian.diagonal().mean() * torch.eye(len(hessian))
    inverse = torch.linalg.inv(hessian.double())
    codes = torch.empty(weight.shape, dtype=torch.uint8)
    for j in range(weight.shape[1]):
        s, z = scale[:, j // size], zero_point[:, j // size]
        codes[:, j] = format.nearest(weight[:, j].float() / s + z)
        error = (weight[:, j] - s * (codes[:, j] - z)) / inverse[j, j]
        weight -= error[:, None] * inverse[j]
        inverse -= inverse[:, j : j + 1] @ inverse[j : j + 1] / inverse[j, j]
        inverse[j, j] = 1.0
    return codes


@pytest.mark.parametrize("block_size", [1, 24, 128])
def test_blocks_give_the_codes_of_the_plain_loop(block_size):
    weight, hessian, format = gaussian(32, 128), gram(512, 128), named("int4_g32")
    quantizer = Gptq(act_order=False, block_size=block_size, clip_steps=0)
    codes = quantizer.quantize(weight, format, hessian).codes
    expected = plain_gptq(weight, format, hessian, quantizer.damping)
    assert (codes == expected).float().mean() > 0.995  # a tie may fall the other way


def test_uncorrelated_inputs_make_it_round_to_nearest():
    weight, format = gaussian(16, 128), named("int3_g64")
    ours = Gptq().quantize(weight, format, torch.eye(128))
    assert torch.equal(ours.codes, Rtn().quantize(weight, format).codes)


def test_act_order_lowers_the_output_error_where_power_differs():
    weight, format = gaussian(64, 256), named("int3_g64")
    power = torch.logspace(0, -2, 256)[
        torch.randperm(256, generator=torch.Generator().manual_seed(0))
    ]
    hessian = gram(1024, 256) * power[:, None] * power
    errors = [
        output_error(
            Gptq(act_order=order).quantize(weight, format, hessian).dequantize(), weight, hessian
        )
        for order in (True, False)
    ]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("act_order", [True, False])
def test_inputs_that_are_always_zero_are_rounded_to_nearest(act_order):
    weight, hessian, format = gaussian(16, 128), gram(512, 128), named("int4_g64")
    dead = torch.arange(0, 128, 9)
    hessian[dead] = 0
    hessian[:, dead] = 0
    quantized = Gptq(act_order=act_order, clip_steps=0).quantize(weight, format, hessian)
    nearest = format.encode(weight, quantized.qparams)
    assert torch.equal(quantized.codes[:, dead], nearest[:, dead])
    assert not torch.equal(quantized.codes, nearest)


def test_fewer_tokens_than_columns_still_beat_rounding():
    weight, format = gaussian(16, 256), named("int3_g64")
    inputs = gaussian(8, 256, seed=5)
    hessian = inputs.T @ inputs / len(inputs)
    ours = output_error(Gptq().quantize(weight, format, hessian).dequantize(), weight, hessian)
    plain = output_error(Rtn().quantize(weight, format).dequantize(), weight, hessian)
    assert ours < 0.1 * plain


def test_a_slightly_indefinite_hessian_is_damped_more():
    hessian = gram(512, 128)
    values, vectors = torch.linalg.eigh(hessian)
    values[:5] = -0.03 * hessian.diagonal().mean()
    hessian = vectors @ torch.diag(values) @ vectors.T
    codes = Gptq().quantize(gaussian(8, 128), named("int4_g64"), hessian).codes
    assert codes.float().std() > 1


def test_a_hessian_that_no_damping_saves_is_refused():
    hessian = 100 * (torch.ones(128, 128) - torch.eye(128)) + torch.eye(128)
    with pytest.raises(InvalidArgument, match="not positive definite"):
        Gptq().quantize(gaussian(8, 128), named("int4_g64"), hessian)


@pytest.mark.parametrize("hessian", [None, torch.eye(64)])
def test_a_missing_or_misshapen_hessian_is_refused(hessian):
    with pytest.raises(InvalidArgument, match=r"needs a Hessian of shape \(128, 128\)"):
        Gptq().quantize(gaussian(8, 128), named("int4_g64"), hessian)


def test_a_hessian_that_is_not_finite_is_refused():
    hessian = torch.eye(128)
    hessian[0, 0] = float("nan")
    with pytest.raises(NonFinite, match="calibration"):
        Gptq().quantize(gaussian(8, 128), named("int4_g64"), hessian)
