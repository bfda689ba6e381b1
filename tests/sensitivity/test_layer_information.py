"""LayerInformation: its three signs by their definitions."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.models import gradients
from bitfront.models.accumulators import accumulate
from bitfront.models.bank import WeightBank
from bitfront.models.layers import blocks, search_space
from bitfront.quantizers.rtn import Rtn
from bitfront.sensitivity.layer_information import LayerInformation, _Shapes, drops, shape_of


def test_compactness_and_gain_of_known_states():
    rows = torch.zeros(10, 6)
    rows[:4, :4] = 3 * torch.eye(4)  # four equal singular values
    compactness, gain = shape_of(rows, top_k=1)
    assert compactness == pytest.approx(1 / 4 - 1 / 6)
    assert gain == pytest.approx(1 / 4 - 1 / 6)
    assert shape_of(torch.eye(6), 2) == pytest.approx((0.0, 0.0), abs=1e-12)
    assert shape_of(torch.zeros(5, 3), 1) == (0.0, 0.0)
    assert shape_of(torch.ones(5, 3), 8)[1] == 0.0  # fewer directions than top_k


def test_wide_and_tall_states_are_the_same_states():
    rows = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([rows, torch.zeros(20, 9)])
    assert shape_of(rows, 2) == pytest.approx(shape_of(padded, 2))


def test_how_passes_are_cut_changes_nothing(
    tiny_llama, tiny_tokens, tiny_space, tiny_bank, monkeypatch
):
    def values():
        tokens = tiny_tokens[:4]
        return LayerInformation().estimate(tiny_llama, tokens, tiny_space, tiny_bank).values

    whole = values()
    monkeypatch.setattr(gradients, "TOKENS_PER_PASS", tiny_tokens.shape[1])
    np.testing.assert_allclose(values(), whole, rtol=1e-4)


def test_blocks_whose_output_is_not_all_the_next_one_reads_are_not_left_out(tmp_path):
    """XLM adds the residual outside its list of blocks."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("xlm", vocab_size=96, emb_dim=32, n_layers=3, n_heads=2)
    model = AutoModelForCausalLM.from_config(config).eval()
    space = search_space(model, (named("int2_channel"), named("int4_channel")), None, tied=False)
    bank = WeightBank.build(tmp_path, model, space, Rtn())
    tokens = torch.randint(3, 96, (2, 32), generator=torch.Generator().manual_seed(0))
    shapes = _Shapes(space, len(blocks(model)), top_k=2)
    accumulate(model, tokens, space, bank, [shapes], None)
    assert not shapes.chained
    one = LayerInformation(top_k=2, max_sequences=1).estimate(model, tokens, space, bank)
    two = LayerInformation(top_k=2, max_sequences=2).estimate(model, tokens, space, bank)
    np.testing.assert_array_equal(one.values, two.values)
    assert (one.values > 0).all()


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
