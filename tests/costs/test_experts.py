"""Routed experts: all their bytes count as memory, their active share as time and operations."""

import math
from dataclasses import replace

import numpy as np
import pytest
from instances import random_space

from bitfront.costs.bops import Bops
from bitfront.costs.latency import Latency
from bitfront.costs.memory import Memory
from bitfront.costs.roofline import DEVICES, Roofline
from tests.costs.test_latency import space_of, table_of


@pytest.fixture
def dense():
    return random_space(np.random.default_rng(0), 6, 5)


@pytest.fixture
def routed(dense):
    """The first layer is an expert that a quarter of the tokens go through."""
    return replace(dense, layers=(replace(dense.layers[0], active=0.25), *dense.layers[1:]))


def test_memory_counts_every_expert(dense, routed):
    for expected, table in zip(Memory().cost(dense), Memory().cost(routed), strict=True):
        np.testing.assert_array_equal(table.values, expected.values)


def test_operations_count_the_active_share(dense, routed):
    expected, found = (Bops().cost(space)[0].values for space in (dense, routed))
    np.testing.assert_array_equal(found[0], np.ceil(expected[0] / 4))
    np.testing.assert_array_equal(found[1:], expected[1:])


@pytest.mark.parametrize(("batch", "share"), [(1, 0.25), (2, 1 - 0.75**2), (64, 1 - 0.75**64)])
def test_the_roofline_reads_an_expert_when_some_token_needs_it(dense, routed, batch, share):
    expected, found = (Roofline("l4", batch).cost(space)[0].values for space in (dense, routed))
    np.testing.assert_array_equal(found[1:], expected[1:])
    bandwidth, rate = DEVICES["l4"]
    layer = routed.layers[0]
    for column in np.flatnonzero(routed.allowed[0]):
        reading = share * routed.formats[column].nbytes(layer.shape) / bandwidth
        computing = 2 * batch * 0.25 * layer.n_weights / rate
        assert found[0, column] == math.ceil(1e9 * max(reading, computing))


def test_measured_time_counts_by_the_chance_of_being_read(tmp_path):
    dense = space_of((64, 64), (256, 64))
    table_of(dense).save(tmp_path / "t.json")
    routed = replace(dense, layers=(replace(dense.layers[0], active=0.25), dense.layers[1]))
    expected, found = (
        Latency(str(tmp_path / "t.json")).cost(space)[0].values for space in (dense, routed)
    )
    np.testing.assert_array_equal(found[0], np.ceil(expected[0] / 4))
    np.testing.assert_array_equal(found[1], expected[1])
