"""Dense and sparse: the largest weights of each row apart, and what the others gain by it."""

import pytest
import torch

from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.formats.sparse_outliers import COLUMNS, VALUES, SparseOutliers
from bitfront.models.quant_linear import QuantLinear
from bitfront.quantizers.gptq import Gptq
from bitfront.quantizers.rtn import Rtn


def heavy(*shape):
    torch.manual_seed(0)
    return torch.distributions.StudentT(4.0).sample(shape) * 0.02


def test_the_largest_of_each_row_are_kept_in_float16():
    weight, format = heavy(8, 400), named("int3_channel_sparse10")
    quantized = Rtn().quantize(weight, format)
    columns = quantized.qparams[COLUMNS].long()
    assert columns.shape == (8, 4)
    assert (columns.diff() > 0).all()
    largest = weight.abs().topk(4, dim=1).indices.sort(dim=1).values
    assert torch.equal(columns, largest)
    assert torch.equal(quantized.qparams[VALUES], weight.gather(1, largest).half())
    dense = format.grid.decode(quantized.codes, quantized.qparams)
    assert torch.equal(
        quantized.dequantize() - dense != 0, torch.zeros(8, 400).scatter(1, largest, 1) > 0
    )


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("quantizer", [Rtn(), Gptq()], ids=["rtn", "gptq"])
def test_outliers_in_their_own_room_beat_smaller_groups_that_take_more(bits, quantizer):
    """SqueezeLLM's claim, at fewer bits than groups of 64."""
    weight = heavy(32, 512)
    x = torch.randn(1024, 64) @ torch.randn(64, 512) + 0.3 * torch.randn(1024, 512)
    hessian = x.T @ x / len(x)
    errors = []
    for name in (f"int{bits}_channel_sparse10", f"int{bits}_g64"):
        error = quantizer.quantize(weight, named(name), hessian).dequantize() - weight
        errors.append(((error @ hessian) * error).sum())
    assert errors[0] < 0.9 * errors[1]
    shape = (4096, 4096)
    ours, groups = named(f"int{bits}_channel_sparse10"), named(f"int{bits}_g64")
    assert ours.bits_per_weight(shape) < groups.bits_per_weight(shape)


def test_columns_beyond_32767_come_back():
    weight, format = torch.zeros(1, 1 << 16), named("int4_g128_sparse5")
    weight[0, [3, 40000, 65535]] = torch.tensor([5.0, -6.0, 7.0])
    quantized = Rtn(clip_steps=0).quantize(weight, format)
    read = format.decode_stored(quantized.tensors(), weight.shape)
    torch.testing.assert_close(read, weight)
    assert not format.fits((1, (1 << 16) + 128))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_layer_multiplies_by_both_parts(dtype):
    weight, format = heavy(32, 256), named("int4_g128_sparse10")
    quantized = Rtn().quantize(weight, format)
    layer = QuantLinear(format, (32, 256), dtype)
    layer.load_state_dict(quantized.tensors())
    x = torch.randn(2, 256, dtype=dtype)
    assert torch.equal(layer(x), torch.nn.functional.linear(x, quantized.dequantize().to(dtype)))


@pytest.mark.parametrize("per_mille", [0, 101])
def test_shares_out_of_range_are_refused(per_mille):
    with pytest.raises(InvalidArgument, match=f"per_mille={per_mille}"):
        SparseOutliers(per_mille=per_mille)
