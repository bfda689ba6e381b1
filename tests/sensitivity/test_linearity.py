"""linearity: a measured slope times each format's relative error."""

from dataclasses import replace

import numpy as np
import pytest

from bitfront.errors import InvalidArgument
from bitfront.sensitivity.linearity import Linearity
from bitfront.sensitivity.weight_error import WeightError


@pytest.fixture(scope="module")
def few(tiny_space):
    return replace(tiny_space, layers=tiny_space.layers[-7:])


def test_rows_are_proportional_to_the_relative_weight_error(
    tiny_llama, tiny_tokens, few, tiny_bank
):
    arguments = (tiny_llama, tiny_tokens, few, tiny_bank)
    slopes = Linearity(max_sequences=1).estimate(*arguments).values
    slopes /= WeightError(relative=True).estimate(*arguments).values
    np.testing.assert_allclose(slopes, slopes[:, :1].repeat(4, axis=1), rtol=1e-6)


def test_kl_rises_in_proportion_to_the_squared_noise(tiny_llama, tiny_tokens, few, tiny_bank):
    """The theorem itself: slopes of small and large noise agree."""
    slopes = [
        Linearity(smallest=t, largest=t, n_levels=1, max_sequences=2)
        .estimate(tiny_llama, tiny_tokens, few, tiny_bank)
        .values
        for t in (0.05, 0.2)
    ]
    np.testing.assert_allclose(slopes[1] / slopes[0], 1, atol=0.3)


def test_seed_changes_the_noise_but_hardly_the_table(tiny_llama, tiny_tokens, few, tiny_bank):
    first, second = (
        Linearity(seed=seed, max_sequences=2)
        .estimate(tiny_llama, tiny_tokens, few, tiny_bank)
        .values
        for seed in (0, 1)
    )
    assert (first != second).all()
    assert np.abs(np.log(second / first)).max() < np.log(2)


@pytest.mark.parametrize(
    "fields", [{"smallest": 0.0}, {"smallest": 0.4}, {"n_levels": 0}, {"max_sequences": 0}]
)
def test_refuses_levels_that_make_no_slope(fields):
    with pytest.raises(InvalidArgument, match="give"):
        Linearity(**fields)
