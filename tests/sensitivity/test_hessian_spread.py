"""hessian_spread: mean and spread over shards, and how sure it says it is."""

from dataclasses import replace

import numpy as np
import pytest

from bitfront.models.curvature import top_eigenvalues
from bitfront.sensitivity.base import scaled_errors
from bitfront.sensitivity.hessian_spread import HessianSpread


@pytest.fixture(scope="module")
def given(tiny_llama, tiny_tokens, tiny_space, tiny_bank):
    few = replace(tiny_space, layers=tiny_space.layers[-2:])
    return tiny_llama, tiny_tokens[:3, :32], few, tiny_bank


@pytest.mark.parametrize("few", [{"n_shards": 1}, {"max_sequences": 1}])
def test_one_shard_says_nothing_about_the_error(given, few):
    note = HessianSpread(n_iterations=1, n_sharing=1, **few).estimate(*given).note
    assert note == "standard error of the top eigenvalue: unknown, one sample shows no spread"


def test_values_and_note_are_those_of_the_shards(given):
    model, tokens, space, bank = given
    estimator = HessianSpread(n_shards=3, n_iterations=1, n_sharing=1)
    table = estimator.estimate(*given)
    found = np.array(
        [top_eigenvalues(model, tokens[i : i + 1], space, 1, 1, i).mean for i in range(3)]
    )
    mean, spread = found.mean(axis=0), found.std(axis=0)
    np.testing.assert_allclose(
        table.values, scaled_errors(model, space, bank, np.abs(mean) + spread)
    )
    error = found.std(axis=0, ddof=1) / 3**0.5 / np.abs(mean)
    assert f"median {np.median(error):.1%} of its size" in table.note
