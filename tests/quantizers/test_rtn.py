"""Round to nearest: the clip search never loses to the whole range, in any group."""

import pytest
import torch

from bitfront.formats import catalogue, named
from bitfront.quantizers.rtn import Rtn

CLIPPED = [name for name, f in catalogue().items() if f.scaled and not f.learned]


@pytest.mark.parametrize("name", CLIPPED)
def test_no_group_is_worse_clipped(name):
    format = named(name)
    torch.manual_seed(0)
    weight = torch.distributions.StudentT(3.0).sample((8, 256)) * 0.02
    size = format.group_columns or 256
    rotation = format.rotation(256)
    turned = weight if rotation is None else rotation.turn(weight)
    turned = format.rest(turned, format.taken_out(turned))

    def group_errors(quantizer):
        quantized = quantizer.quantize(weight, format)
        error = format.base.decode(quantized.codes, quantized.qparams) - turned
        return error.square().reshape(8, -1, size).sum(dim=2)

    assert (group_errors(Rtn()) <= group_errors(Rtn(clip_steps=0)) * 1.005).all()


def test_without_steps_the_whole_range_is_kept():
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    weight[0, 0] = 40.0
    format = named("int4_g64")
    quantized = Rtn(clip_steps=0).quantize(weight, format)
    assert torch.equal(quantized.codes, format.encode(weight, format.qparams(weight)))
    assert quantized.dequantize()[0, 0] == pytest.approx(40.0, rel=2e-3)


def test_more_clips_find_less_error():
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    errors = [
        (Rtn(clip_steps=n).quantize(weight, named("int2_g64")).dequantize() - weight).square().sum()
        for n in (0, 2, 8, 64)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1.5 * errors[2] > 1.49 * errors[3]
