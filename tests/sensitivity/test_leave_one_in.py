"""leave_one_in: the measured truth equals a full evaluation with one layer swapped."""

import numpy as np
import pytest
import torch

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.evaluation import METRICS, evaluate
from bitfront.formats import named
from bitfront.models.layers import search_space
from bitfront.models.patch import PatchedModel
from bitfront.models.reference import Reference
from bitfront.sensitivity.leave_one_in import LeaveOneIn
from tests.export.exports import BankOnDemand
from tests.models.test_layers import OUTSIDE, build


def test_entries_are_full_evaluations_with_one_layer_swapped(
    tiny_llama, tiny_tokens, tiny_space, tiny_bank, measured
):
    reference = Reference.of(tiny_llama, tiny_tokens[:8])
    kl = {"kl": METRICS.build("kl_divergence")}
    for row in (0, 10, 27):
        layer = tiny_space.layers[row].name
        with PatchedModel(tiny_llama, tiny_bank) as patched:
            for column, format in enumerate(tiny_space.formats):
                patched.apply(Allocation({layer: format.name}))
                expected = evaluate(tiny_llama, reference, kl)["kl"]
                assert measured.values[row, column] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("family", OUTSIDE)
def test_layers_outside_the_blocks_are_full_evaluations_too(family):
    model = build(family)
    space = search_space(model, (named("int2_channel"), named("int4_channel")), None, tied=False)
    bank = BankOnDemand(model, space)
    bank.digest = "on demand"
    tokens = torch.randint(3, 96, (2, 32), generator=torch.Generator().manual_seed(0))
    table = LeaveOneIn().estimate(model, tokens, space, bank)
    reference = Reference.of(model, tokens)
    kl = {"kl": METRICS.build("kl_divergence")}
    expected = np.zeros_like(table.values)
    with PatchedModel(model, bank) as patched:
        for row, layer in enumerate(space.layers):
            for column, format in enumerate(space.formats):
                patched.apply(Allocation({layer.name: format.name}))
                expected[row, column] = evaluate(model, reference, kl)["kl"]
    assert set(OUTSIDE[family]) <= {x.name for x in space.layers}
    assert (expected > 0).all()
    np.testing.assert_allclose(table.values, expected, rtol=1e-6)


def test_fewer_bits_lose_more_on_the_trained_model(measured):
    """Int2 to int3 to int4 to int8, in every layer: what makes the truth a truth."""
    assert (measured.values[:, :-1] > measured.values[:, 1:]).all()


def test_max_sequences_bounds_the_text_that_is_read(tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    forwards = []
    hook = tiny_llama.register_forward_hook(lambda *_: forwards.append(1))
    try:
        LeaveOneIn(max_sequences=1).estimate(tiny_llama, tiny_tokens, tiny_space, tiny_bank)
    finally:
        hook.remove()
    moves = len({layer.block for layer in tiny_space.layers}) - 1
    assert len(forwards) == 1 + moves + int(tiny_space.allowed.sum())


def test_refuses_no_sequences():
    with pytest.raises(InvalidArgument, match="at least 1"):
        LeaveOneIn(max_sequences=0)
