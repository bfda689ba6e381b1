"""Slopes are derivatives of the measured KL along the line from one format to another."""

import pytest
import torch

from bitfront import formats
from bitfront.evaluation import evaluate
from bitfront.evaluation.kl_divergence import KlDivergence
from bitfront.models.bank import WeightBank
from bitfront.models.layers import search_space, set_weight
from bitfront.models.patch import PatchedModel
from bitfront.models.reference import Reference
from bitfront.models.slopes import slopes
from bitfront.quantizers.rtn import Rtn

MENU = ("int3_g32", "int4_g32")
STEP = 0.05


@pytest.fixture(scope="module")
def bank(tiny_llama, tmp_path_factory):
    space = search_space(tiny_llama, tuple(map(formats.named, MENU)), None, tied=False)
    return WeightBank.build(tmp_path_factory.mktemp("bank"), tiny_llama, space, Rtn())


def test_slope_is_the_directional_derivative_of_kl(tiny_llama, tiny_tokens, bank):
    space, tokens = bank.space, tiny_tokens[:4]
    reference = Reference.of(tiny_llama, tokens)
    held = space.decode(space.uniform(0))
    with PatchedModel(tiny_llama, bank) as patched:
        patched.apply(held)
        table = slopes(tiny_llama, reference, space, bank, held)
        assert (table.values[:, 0] == 0).all()
        for row in (0, 6, len(space.layers) - 1):
            measured = derivative(tiny_llama, reference, bank, space.layers[row].name)
            assert table.values[row, 1] == pytest.approx(measured, rel=0.1, abs=2e-6)
    assert all(p.grad is None for p in tiny_llama.parameters())


def derivative(model, reference, bank, layer):
    """Central difference of KL as one layer moves from the first format towards the second."""
    start, end = (bank.weight(layer, name) for name in MENU)
    kl = []
    for step in (STEP, -STEP):
        set_weight(model, layer, torch.lerp(start, end, step))
        kl.append(evaluate(model, reference, {"kl": KlDivergence()})["kl"])
    set_weight(model, layer, start)
    return (kl[0] - kl[1]) / (2 * STEP)
