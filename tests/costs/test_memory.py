import numpy as np
import pytest
from cases import COSTS as CLAIMS
from instances import random_space

from bitfront.costs import COSTS
from bitfront.formats import catalogue
from bitfront.space import Layer, SearchSpace
from bitfront.timings import LayerCall, Timing, Timings


@pytest.fixture
def space():
    return random_space(np.random.default_rng(2), 8, 5)


@pytest.fixture
def params(space, tmp_path):
    """What a cost needs besides the space."""
    entries = {
        LayerCall(x.shape, f.name, 1): Timing((10.5 * f.nbytes(x.shape),))
        for x in space.layers
        for f in space.formats
        if f.fits(x.shape)
    }
    Timings("device", "float32", {}, "", entries).save(tmp_path / "table.json")
    return {"latency": {"table": str(tmp_path / "table.json"), "rest_ms": 1.0}}


@pytest.mark.parametrize("name", COSTS.names())
def test_costs_are_whole_positive_and_deterministic(name, space, params):
    first, second = (COSTS.build(name, params.get(name, {})).cost(space) for _ in range(2))
    assert tuple(table.quantity for table in first) == CLAIMS[name]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        used = one.values[space.allowed]
        assert (used == np.rint(used)).all()
        assert (used > 0).all()
        assert one.space is space
        assert one.outside == other.outside == np.rint(one.outside) >= 0


def test_bytes_are_what_the_format_stores(space):
    nbytes, code_bits = COSTS.build("memory").cost(space)
    assert (nbytes.quantity, code_bits.quantity) == ("bytes", "code_bits")
    for row, layer in enumerate(space.layers):
        for column, format in enumerate(space.formats):
            if format.fits(layer.shape):
                assert nbytes.values[row, column] == format.nbytes(layer.shape)
            assert code_bits.values[row, column] == format.num_bits * layer.n_weights


@pytest.mark.parametrize("shape", [(3, 64), (16, 320)])
def test_bits_are_whole_and_those_of_the_stored_codes(shape):
    """Of trits with the byte that is not full, of salient columns with as many as there are."""
    menu = tuple(f for f in catalogue().values() if f.fits(shape))
    assert len(menu) > 100
    space = SearchSpace((Layer("0", shape, "0"),), menu)
    _, code_bits = COSTS.build("memory").cost(space)
    for format, found in zip(menu, code_bits.values[0], strict=True):
        stored = format.stored(shape).items()
        codes = [t for name, t in stored if "codes_" in name or name[:5] in ("weigh", "trits")]
        assert found == 8 * sum(tensor.nbytes for tensor in codes), format.name


def test_bit_operations_are_widths_times_multiplications(space):
    (table,) = COSTS.build("bops", {"activation_bits": 8}).cost(space)
    for row, layer in enumerate(space.layers):
        for column, format in enumerate(space.formats):
            assert table.values[row, column] == format.num_bits * 8 * layer.n_weights
