"""Ternary weights: five to a byte, at the scale that no other beats."""

import pytest
import torch

from bitfront import packing
from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.formats.ternary import Ternary, best_scale


def gaussian(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("n_columns", [1, 4, 5, 64, 128, 333])
def test_trits_come_back_from_their_bytes(n_columns):
    trits = torch.randint(0, 3, (7, n_columns), dtype=torch.uint8)
    packed = packing.pack_trits(trits)
    assert tuple(packed.shape) == packing.trits_shape((7, n_columns))
    assert torch.equal(packing.unpack_trits(packed, n_columns), trits)


def test_a_byte_is_a_number_in_base_three():
    assert packing.pack_trits(torch.tensor([[2, 1, 0, 0, 2, 1]], dtype=torch.uint8)).tolist() == [
        [2 + 3 + 2 * 81, 1]
    ]


@pytest.mark.parametrize("weighted", [False, True])
def test_no_other_scale_has_less_error(weighted):
    weight = gaussian(4, 128) ** 3
    importance = torch.rand(128) if weighted else None
    best = best_scale(weight, 64, importance)

    def error(scale):
        level = (weight.reshape(4, 2, 64) / scale[..., None]).round().clamp(-1, 1)
        squares = (level * scale[..., None] - weight.reshape(4, 2, 64)).square()
        return (squares * (1 if importance is None else importance.reshape(2, 64))).sum(dim=2)

    for factor in torch.linspace(0.3, 3, 200):
        assert (error(best) <= error(best * factor) * (1 + 1e-5)).all()


def test_columns_without_input_still_have_a_finite_scale():
    scale = named("ternary_g64").qparams(gaussian(2, 64), importance=torch.zeros(64))["scale"]
    assert scale.isfinite().all()


def test_another_group_size_is_refused():
    with pytest.raises(InvalidArgument, match="Group size 32 of ternary is not 64 or 128"):
        Ternary(32)
