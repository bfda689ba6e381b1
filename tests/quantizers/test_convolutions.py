"""Kernels of convolutions: matrices of few columns whose groups of rows read their own inputs."""

import pytest
import torch

from bitfront.errors import InvalidArgument
from bitfront.formats import catalogue, named
from tests.quantizers.test_contract import QUANTIZER_NAMES, build, statistics

KERNELS = ((6, 9, 6), (4, 49, 2), (3, 1, 1), (1, 25, 1))
"""Rows, columns and groups of rows: depthwise, in groups, of pixels, and of one channel."""


def patches(shape, n_groups, seed=0):
    """A kernel, and the Gram matrix of the correlated patches that each group of its rows reads."""
    generator = torch.Generator().manual_seed(seed)
    weight, n_columns = torch.randn(shape, generator=generator), shape[1]
    seen = torch.randn(n_groups, 300, n_columns, generator=generator)
    seen = seen @ torch.randn(n_groups, n_columns, n_columns, generator=generator).cumsum(dim=1)
    grams = seen.mT @ seen / 300
    return weight, grams if n_groups > 1 else grams[0]


def energy(error, grams):
    by_group = error.unflatten(0, (*grams.shape[:-2], -1))
    return ((by_group @ grams) * by_group).sum()


def hostile(shape, n_groups):
    """Tails without a variance, taps of zeros, a channel of zeros and one that is always zero."""
    weight, grams = patches(shape, n_groups)
    if len(weight) > 1:
        weight = weight / patches(shape, 1, seed=1)[0]
        weight[:, : shape[1] // 3] = 0
        weight[-1] = 0
    if n_groups > 1:
        grams[0] = 0
    return weight, grams


def kernels(format):
    """Those that the format fits; whole groups where it has them."""
    if (step := format.group_columns) is None:
        return KERNELS
    return ((4, next(step * k for k in range(1, 9) if format.fits((4, step * k))), 2),)


@pytest.mark.parametrize("format_name", catalogue())
def test_every_format_by_every_quantizer_on_kernels_that_it_fits(format_name):
    format = named(format_name)
    for rows, columns, n_groups in kernels(format):
        if not format.fits((rows, columns)):
            continue
        weight, grams = hostile((rows, columns), n_groups)
        for quantizer in map(build, (*QUANTIZER_NAMES, "kmeans:by=gradients")):
            where = f"{quantizer} on {rows} x {columns} in {n_groups} groups"
            given = statistics(quantizer, weight, grams)
            quantized = quantizer.quantize(weight, format, given)
            values, tensors = quantized.dequantize(), quantized.tensors()
            assert values.isfinite().all(), where
            written = sum(t.numel() * t.element_size() for t in tensors.values())
            assert written == format.nbytes((rows, columns)), where
            assert torch.equal(format.unpack(tensors, (rows, columns))[0], quantized.codes), where
            assert torch.equal(format.decode_stored(tensors, (rows, columns)), values), where
            if format.code_bits >= 3 and not quantizer.needs_fisher:
                lost, whole = (energy(x, grams) for x in (values - weight, weight))
                assert lost < whole, f"{where}: {lost} of {whole}"


@pytest.mark.parametrize("name", ["awq", "gptq", "gptaq", "kmeans", "slim"])
def test_each_group_of_rows_is_rounded_for_its_own_inputs(name):
    weight, grams = patches((32, 9), 32)
    errors = {}
    for key, seen in (("own", grams), ("others'", grams.roll(1, dims=0))):
        values = build(name).quantize(weight, named("int2_channel"), seen).dequantize()
        errors[key] = energy(values - weight, grams)
    nearest = build("rtn").quantize(weight, named("int2_channel")).dequantize()
    assert errors["own"] < 0.97 * errors["others'"]
    assert errors["own"] < 0.9 * energy(nearest - weight, grams)


def test_one_group_is_the_same_as_none_and_rows_alone_are_as_in_groups():
    weight, grams = patches((6, 27), 6)
    quantizer, format = build("gptq:act_order=false"), named("int3_channel")
    one, plain = (quantizer.quantize(weight, format, g).codes for g in (grams[:1], grams[0]))
    assert torch.equal(one, plain)
    together = quantizer.quantize(weight, format, grams).dequantize()
    for index in range(6):
        row = slice(index, index + 1)
        alone = quantizer.quantize(weight[row], format, grams[index]).dequantize()
        torch.testing.assert_close(together[row], alone)


def test_groups_that_do_not_divide_the_rows_are_refused():
    weight, grams = patches((6, 9), 4)
    with pytest.raises(InvalidArgument, match=r"shape \(9, 9\), given shape \(4, 9, 9\)"):
        build("gptq").quantize(weight, named("int4_channel"), grams)
