"""PerturbationHessian: a quadratic loss has the same gradient change whatever the move."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.models.bank import WeightBank
from bitfront.models.layers import get_weight, search_space
from bitfront.quantizers.rtn import Rtn
from bitfront.sensitivity.fisher import Fisher
from bitfront.sensitivity.perturbation_hessian import PerturbationHessian
from tests.models.test_layers import build


def test_the_size_of_a_small_move_hardly_matters(tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    """Gradients grow with the move, and so do the changes they are divided by."""
    given = (tiny_llama, tiny_tokens[:2], tiny_space, tiny_bank)
    small, large = (PerturbationHessian(scale=s).estimate(*given).values for s in (0.02, 0.08))
    assert spearmanr(small.ravel(), large.ravel()).statistic > 0.99
    assert 0.5 < np.median(small / large) < 2


def test_the_embedding_is_as_before(tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    embedding = tiny_llama.get_input_embeddings()
    PerturbationHessian().estimate(tiny_llama, tiny_tokens[:1], tiny_space, tiny_bank)
    assert not embedding._forward_hooks


def test_refuses_no_move():
    with pytest.raises(InvalidArgument, match="scale > 0"):
        PerturbationHessian(scale=0.0)


def test_large_outputs_are_no_infinity(tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    """The same function with one output 2^18 times larger: a value projection and its reader.

    Outputs beyond the range of 16 bits must count as others do.
    """
    names = ("model.layers.1.self_attn.v_proj", "model.layers.1.self_attn.o_proj")
    rows = [x for x in tiny_space.layers if x.name in names]
    space = replace(tiny_space, layers=tuple(rows))
    weights = [get_weight(tiny_llama, x.name) for x in rows]
    before = [weight.clone() for weight in weights]

    def values(factor, folder):
        with torch.no_grad():
            for weight, kept, scale in zip(weights, before, (factor, 1 / factor), strict=True):
                weight.copy_(kept * scale)
        bank = WeightBank.build(folder, tiny_llama, space, Rtn())
        return PerturbationHessian().estimate(tiny_llama, tiny_tokens[:2], space, bank).values

    try:
        with TemporaryDirectory() as one, TemporaryDirectory() as other:
            large, same = values(2.0**18, Path(one)), values(1.0, Path(other))
    finally:
        with torch.no_grad():
            for weight, kept in zip(weights, before, strict=True):
                weight.copy_(kept)
    # The reader's small weights are beyond what its scales can say; the projection is the same.
    np.testing.assert_allclose(large[0], same[0], rtol=0.05)


def test_an_output_that_no_move_changes_counts_as_the_others_do(tmp_path):
    """OPT whose second block feeds `fc2` a constant: rounding is no change to divide by."""
    model = build("opt", word_embed_proj_dim=32)
    space = search_space(model, (named("int2_channel"), named("int4_channel")), None, tied=True)
    tokens = torch.randint(3, 96, (2, 32), generator=torch.Generator().manual_seed(0))
    block = model.model.decoder.layers[1]
    block.fc1.bias.data.uniform_(0.1, 1.0)
    block.fc1.weight.data.zero_()
    bank = WeightBank.build(tmp_path, model, space, Rtn())
    names = [x.name for x in space.layers]
    row = names.index("model.decoder.layers.1.fc2")
    given = (model, tokens, space, bank)
    ours, fisher = (e.estimate(*given).values[row] for e in (PerturbationHessian(), Fisher()))
    assert (ours < 20 * fisher).all()
    assert (ours > fisher / 20).all()
