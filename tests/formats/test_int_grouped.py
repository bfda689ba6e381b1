"""Integer formats: the ends of the range, the zero point, the spare level of symmetric codes."""

import pytest
import torch

from bitfront.errors import InvalidArgument
from bitfront.formats.int_grouped import IntGrouped


def test_both_ends_of_the_range_are_levels():
    weight = torch.linspace(-0.7, 1.3, 64).reshape(1, 64)
    format = IntGrouped(2, 64)
    qparams = format.qparams(weight)
    values = format.decode(format.encode(weight, qparams), qparams)
    torch.testing.assert_close(values[0, [0, -1]], weight[0, [0, -1]], rtol=2e-3, atol=0)


@pytest.mark.parametrize("offset", [-5.0, 0.0, 5.0])
def test_the_zero_point_is_always_a_code(offset):
    weight = torch.randn(8, 128, generator=torch.Generator().manual_seed(0)) + offset
    zero_point = IntGrouped(3, 32).qparams(weight)["zero_point"]
    assert (zero_point >= 0).all()
    assert (zero_point <= 7).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_symmetric_codes_reach_their_largest_value_on_either_side(sign):
    weight = sign * torch.tensor([[1.0, -0.5, 0.25, 0.5] * 16])
    format = IntGrouped(2, 64, symmetric=True)
    qparams = format.qparams(weight)
    values = format.decode(format.encode(weight, qparams), qparams)
    assert torch.equal(values[0, 0], weight[0, 0])
    assert len(values.unique()) == 4


@pytest.mark.parametrize("fields", [{"num_bits": 0}, {"num_bits": 9}, {"group_size": 48}])
def test_fields_out_of_range_are_refused(fields):
    with pytest.raises(InvalidArgument, match=str(next(iter(fields.values())))):
        IntGrouped(**fields)
