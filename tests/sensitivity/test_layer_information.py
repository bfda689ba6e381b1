"""LayerInformation: its three signs by their definitions."""

import numpy as np
import pytest
import torch

from bitfront.errors import InvalidArgument
from bitfront.models.layers import blocks
from bitfront.sensitivity.layer_information import LayerInformation, drops, shape_of


def test_effective_rank_and_energy_of_known_states():
    rows = torch.zeros(10, 6)
    rows[:4, :4] = torch.eye(4)  # four equal singular values
    entropy, energy = shape_of(rows, top_k=1)
    assert np.exp(entropy) == pytest.approx(4.0)
    assert energy == pytest.approx(0.25)
    assert shape_of(torch.zeros(5, 3), 1) == (0.0, 1.0)


def test_wide_and_tall_states_are_the_same_states():
    rows = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([rows, torch.zeros(20, 9)])
    assert shape_of(rows, 2) == pytest.approx(shape_of(padded, 2))


def test_a_skipped_block_is_left_out_and_comes_back(tiny_llama, tiny_tokens):
    tokens = tiny_tokens[:2, :64]
    found = drops(tiny_llama, tokens)
    assert found.shape == (4,)
    assert (found > 0).all()  # every block of a trained model is of use
    block = blocks(tiny_llama)[1]
    with torch.no_grad():
        before = tiny_llama(tokens, labels=tokens).loss.item()
        original, block.forward = block.forward, lambda hidden, *_args, **_kwargs: hidden
        after = tiny_llama(tokens, labels=tokens).loss.item()
        block.forward = original
        del block.forward
    assert found[1] == pytest.approx(after - before, rel=1e-3)
    assert tiny_llama(tokens, labels=tokens).loss.item() == pytest.approx(before)


def test_refuses_no_sequences():
    with pytest.raises(InvalidArgument, match="at least 1"):
        LayerInformation(max_sequences=0)
