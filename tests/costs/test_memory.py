import numpy as np
import pytest
from cases import COSTS as CLAIMS
from instances import random_space

from bitfront.costs import COSTS


@pytest.fixture
def space():
    return random_space(np.random.default_rng(2), 8, 5)


@pytest.mark.parametrize("name", COSTS.names())
def test_costs_are_whole_positive_and_deterministic(name, space):
    first, second = (COSTS.build(name).cost(space) for _ in range(2))
    assert tuple(table.quantity for table in first) == CLAIMS[name]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        used = one.values[space.allowed]
        assert (used == np.rint(used)).all()
        assert (used > 0).all()
        assert one.space is space


def test_bytes_are_what_the_format_stores(space):
    nbytes, code_bits = COSTS.build("memory").cost(space)
    assert (nbytes.quantity, code_bits.quantity) == ("bytes", "code_bits")
    for row, layer in enumerate(space.layers):
        for column, format in enumerate(space.formats):
            if format.fits(layer.shape):
                assert nbytes.values[row, column] == format.nbytes(layer.shape)
            assert code_bits.values[row, column] == format.num_bits * layer.n_weights
