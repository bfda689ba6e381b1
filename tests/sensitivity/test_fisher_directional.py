"""FisherDirectional: its two parts by autograd, and what either end of the share is."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from bitfront.errors import InvalidArgument
from bitfront.models.layers import get_weight
from bitfront.sensitivity.fisher import Fisher
from bitfront.sensitivity.fisher_directional import FisherDirectional
from bitfront.sensitivity.fisher_output import FisherOutput


def estimated(estimator, model, tokens, space, bank):
    return estimator.estimate(model, tokens, space, bank).values


def test_without_share_it_is_the_diagonal(tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    made = (tiny_llama, tiny_tokens[:3], tiny_space, tiny_bank)
    diagonal = estimated(FisherDirectional(share=0), *made)
    np.testing.assert_allclose(diagonal, estimated(Fisher(), *made), rtol=1e-4)


def test_whole_sequences_as_pieces_are_the_sequence_form(
    tiny_llama, tiny_tokens, tiny_space, tiny_bank
):
    made = (tiny_llama, tiny_tokens[:3], tiny_space, tiny_bank)
    whole = estimated(FisherDirectional(share=1, piece=tiny_tokens.shape[1]), *made)
    expected = estimated(FisherOutput(resolution="sequence"), *made)
    np.testing.assert_allclose(whole, expected, rtol=2e-3)


def test_pieces_are_gradients_through_their_tokens(tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    """With inputs as leaves a piece's gradient is that of the layer's output at its tokens."""
    sequence, piece = tiny_tokens[0, :50], 16  # the last piece is short
    estimator = FisherDirectional(share=1, piece=piece, labels="text")
    table = estimated(estimator, tiny_llama, sequence[None], tiny_space, tiny_bank)
    row = len(tiny_space.layers) - 1
    name, format = tiny_space.layers[row].name, tiny_space.formats[0].name
    kept = {}

    def hook(_module, args, output):
        kept["x"] = args[0].detach()[0]
        kept["y"] = output.requires_grad_()

    handle = tiny_llama.get_submodule(name).register_forward_hook(hook)
    loss = cross_entropy(tiny_llama(sequence[None]).logits[0, :-1], sequence[1:], reduction="sum")
    handle.remove()
    (gradient,) = torch.autograd.grad(loss, kept["y"])
    error = tiny_bank.weight(name, format) - get_weight(tiny_llama, name)
    at_tokens = ((kept["x"] @ error.T) * gradient[0]).sum(dim=1)
    expected = sum(float(part.sum()) ** 2 for part in at_tokens.split(piece)) / (2 * 49)
    assert table[row, 0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("fields", [{"share": -0.1}, {"share": 1.5}, {"piece": 0}])
def test_refuses_shares_and_pieces_out_of_range(fields):
    with pytest.raises(InvalidArgument, match="share from 0 to 1"):
        FisherDirectional(**fields)
