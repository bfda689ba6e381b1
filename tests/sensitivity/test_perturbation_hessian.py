"""PerturbationHessian: a quadratic loss has the same gradient change whatever the move."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from bitfront.errors import InvalidArgument
from bitfront.sensitivity.perturbation_hessian import PerturbationHessian


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
