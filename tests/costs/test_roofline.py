"""Roofline: the longer of reading and computing, and a third objective of a study."""

from dataclasses import replace

import numpy as np
import pytest
from instances import random_space

from bitfront import Choice
from bitfront.costs.roofline import DEVICES, Roofline
from bitfront.errors import InvalidArgument
from bitfront.report.points import points
from bitfront.results import Results
from bitfront.run import run_study
from bitfront.space import Layer


@pytest.fixture
def space():
    return random_space(np.random.default_rng(0), 6, 5)


def test_decoding_is_bound_by_what_is_read(space):
    (table,) = Roofline("l4").cost(space)
    bandwidth, _ = DEVICES["l4"]
    for row, column in np.argwhere(space.allowed):
        nbytes = space.formats[column].nbytes(space.layers[row].shape)
        assert 0 <= table.values[row, column] - 1e9 * nbytes / bandwidth < 1
    assert (table.values == np.rint(table.values)).all()  # solvers take whole numbers


def test_large_batches_are_bound_by_computing(space):
    (table,) = Roofline("l4", batch=10_000).cost(space)
    for row in range(len(space.layers)):
        assert len(set(table.values[row, space.allowed[row]])) == 1


def test_slower_devices_take_longer(space):
    fast, slow = (Roofline(name).cost(space)[0].values for name in ("h100", "l4"))
    assert (slow[space.allowed] >= fast[space.allowed]).all()


def test_the_head_and_what_is_stated_lie_outside_the_search(space):
    embedding, head = (Layer(name, (512, 64), name) for name in ("embedding", "head"))
    menu = space.formats
    with_head = replace(space, pinned=((embedding, menu[1]), (head, menu[0])))
    (table,) = Roofline("l4", rest_ms=2.0).cost(with_head)
    nbytes, (bandwidth, _) = menu[0].nbytes(head.shape), DEVICES["l4"]
    assert 0 <= table.outside - 2e6 - 1e9 * nbytes / bandwidth < 1
    np.testing.assert_array_equal(table.values, Roofline("l4").cost(space)[0].values)


@pytest.mark.parametrize("fields", [{"device": "abacus"}, {"batch": 0}, {"rest_ms": -1.0}])
def test_refuses_what_is_no_device_or_batch(fields):
    with pytest.raises(InvalidArgument, match=r"use|give"):
        Roofline(**fields)


def test_a_study_with_latency_has_three_objectives(tiny_study, tmp_path):
    costs = (Choice("memory"), Choice("roofline", {"device": "cpu"}))
    study = tiny_study(
        4, 2, formats=("int2_g32", "int4_g32", "int8_g32"), costs=costs, n_search_sequences=2,
        n_trials=5,
    )  # fmt: skip
    front = run_study(study, tmp_path)
    assert front.objectives == ("kl", "bytes", "latency_ns")
    assert all(point["values"]["latency_ns"] > 0 for point in points(Results(tmp_path).front()))


def test_memory_is_always_a_cost(tiny_study):
    with pytest.raises(InvalidArgument, match="memory"):
        tiny_study(4, 2, costs=(Choice("roofline"),))
