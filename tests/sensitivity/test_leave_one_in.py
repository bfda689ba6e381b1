"""leave_one_in: the measured truth equals a full evaluation with one layer swapped."""

import pytest

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.evaluation import METRICS, evaluate
from bitfront.models.patch import PatchedModel
from bitfront.models.reference import Reference
from bitfront.sensitivity.leave_one_in import LeaveOneIn


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
    assert len(forwards) == 1 + int(tiny_space.allowed.sum())


def test_refuses_no_sequences():
    with pytest.raises(InvalidArgument, match="at least 1"):
        LeaveOneIn(max_sequences=0)
