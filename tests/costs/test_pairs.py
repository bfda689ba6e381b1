"""What pairs cost: bit operations are a product, tensor cores multiply at the wider of the two."""

import numpy as np
import pytest

from bitfront.costs.bops import Bops
from bitfront.costs.latency import Latency
from bitfront.costs.memory import Memory
from bitfront.costs.roofline import DEVICES, NARROW, Roofline
from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.space import Layer, SearchSpace
from bitfront.timings import Timings

NAMES = ("int4_g64", "int4_g64_aint8", "int4_g64_aint4", "mxfp6_e2m3_amxfp4", "int3_g64_had_aint8")


def space(*names):
    layers = (Layer("a", (64, 128), "a"), Layer("e", (32, 128), "e", active=0.25))
    return SearchSpace(layers, tuple(map(named, names or NAMES)))


def test_bit_operations_are_weight_bits_times_input_bits():
    (table,) = Bops().cost(space())
    expected = [4 * 16, 4 * 8, 4 * 4, 6 * 4, 3 * 8]
    np.testing.assert_array_equal(table.values[0], 64 * 128 * np.array(expected))
    np.testing.assert_array_equal(table.values[1], 32 * 128 / 4 * np.array(expected))
    (table,) = Bops(activation_bits=8).cost(space())
    assert table.values[0, 0] == table.values[0, 1]


def test_bytes_are_those_of_the_weight():
    for table in Memory().cost(space()):
        assert (table.values[:, 0] == table.values[:, 1]).all()
        assert (table.values[:, 0] == table.values[:, 2]).all()


@pytest.mark.parametrize(
    ("device", "name", "unit"),
    [
        ("h100", "int8_channel_sym_aint8", ("int", 8)),
        ("h100", "int4_g64_aint4", ("int", 8)),  # no unit of 4 bits
        ("a100", "int4_g64_aint4", ("int", 4)),
        ("a100", "int4_g64_aint8", ("int", 8)),
        ("h100", "fp8_e4m3_afp8", ("float", 8)),
        ("a100", "fp8_e4m3_afp8", None),
        ("b200", "mxfp4_amxfp4", ("float", 4)),
        ("b200", "mxfp4_amxfp8", ("float", 8)),
        ("b200", "mxfp6_e2m3_amxfp4", ("float", 8)),
        ("b200", "nvfp4_had_anvfp4", ("float", 4)),
        ("b200", "int4_g64_afp8", ("float", 8)),
        ("b200", "int4_g64_anvfp4", ("float", 8)),  # -8 to 7 are no e2m1
        ("b200", "int8_g64_afp8", None),  # nor are 8-bit integers e4m3
        ("b200", "nf4_g64_aint8", None),
        ("b200", "nvfp4_aint8", None),
        ("b200", "int4_g64", None),
        ("cpu", "int8_channel_sym_aint8", None),
    ],
)
def test_the_roofline_computes_at_the_wider_of_the_two(device, name, unit):
    batch = 10**6  # so that computing takes longer than reading
    (table,) = Roofline(device, batch).cost(space(name))
    rate = DEVICES[device][1] if unit is None else NARROW[device][unit]
    assert 0 <= table.values[0, 0] - 1e9 * 2 * batch * 64 * 128 / rate < 1


def test_every_device_with_narrow_units_is_one():
    assert set(NARROW) < set(DEVICES)
    for device, rates in NARROW.items():
        assert all(rate > DEVICES[device][1] for rate in rates.values())


def test_a_table_without_a_pair_is_refused_with_what_to_run(tmp_path):
    Timings("some device", "bfloat16", {}).save(tmp_path / "table.json")
    cost = Latency(str(tmp_path / "table.json"), rest_ms=0.0)
    with pytest.raises(InvalidArgument, match="--formats int4_g64_aint8 --batch 1"):
        cost.cost(space("int4_g64_aint8"))
