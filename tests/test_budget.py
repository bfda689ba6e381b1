"""Budgets of time and of several quantities; those of one size are in `test_study`."""

import json

import numpy as np
import pytest

from bitfront import formats
from bitfront.budget import Budget
from bitfront.errors import InvalidArgument
from bitfront.plugins import Choice
from bitfront.space import Layer, SearchSpace
from bitfront.study import Study
from bitfront.table import LayerTable


@pytest.fixture
def space():
    menu = tuple(formats.named(f"int{bits}_g64") for bits in (2, 4))
    return SearchSpace((Layer("a", (64, 64), "a"), Layer("b", (64, 128), "b")), menu, (), 100)


@pytest.fixture
def costs(space):
    times = LayerTable(space, np.full((2, 2), 1000.0), "latency_ns", outside=500.0)
    return times, LayerTable(space, np.full((2, 2), 7.0), "bops")


@pytest.mark.parametrize(
    ("text", "printed", "bounds"),
    [
        ("12 ms@b1c2048", "12ms@b1c2048", {"latency_ns": 12e6}),
        ("250us @b16", "250us@b16", {"latency_ns": 250e3}),
        ("0.5s", "0.5s", {"latency_ns": 5e8}),
        ("2.5Gbops", "2.5Gbops", {"bops": 2.5e9}),
        ("400kB,3 BPW", "400KB,3bpw", {"bytes": 4e5, "bits_per_weight": 3.0}),
        (
            "3.5bpw, 60MB,10ms@b1",
            "3.5bpw,60MB,10ms@b1",
            {"bits_per_weight": 3.5, "bytes": 60e6, "latency_ns": 1e7},
        ),
    ],
)
def test_times_operations_and_several_are_read_and_printed(text, printed, bounds):
    budget = Budget.parse(text)
    assert str(budget) == printed
    assert Budget.parse(printed) == budget
    assert budget.bounds() == bounds


def test_batch_and_context_of_a_time_are_kept():
    time = Budget.parse("60MB,12ms@b4c512").time
    assert (time.value, time.unit, time.batch, time.context) == (12.0, "ms", 4, 512)
    assert Budget.parse("60MB").time is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("3bpw@b1", "are of a time"),
        ("3ms@b0", "at least 1"),
        ("3ms@b1c0", "at least 1"),
        ("3ms,4us", "twice"),
        ("60MB,1GB", "twice"),
        ("3bpw,", "Cannot read"),
        ("3ms@c9", "Cannot read"),
        ("3ms@b1k2", "Cannot read"),
        ("400xy", "Cannot read budget '400xy'"),
        ("1.5mib", "Cannot read budget '1.5mib': mib may be bits; write MiB for bytes"),
    ],
)
def test_what_makes_no_sense_is_refused(text, why):
    with pytest.raises(InvalidArgument, match=why):
        Budget.parse(text)


def test_limits_leave_room_for_what_the_search_cannot_change(space, costs):
    limits = Budget.parse("3.5bpw,10us@b1,10Gbops").limits(space, costs)
    assert limits == {"bytes": 3.5 * space.n_weights / 8, "latency_ns": 9_500.0, "bops": 1e10}


def test_of_two_sizes_the_tighter_one_limits_the_bytes(space, costs):
    tighter = Budget.parse("3.5bpw,2KB").limits(space, costs)
    assert tighter == {"bytes": 2_000 - space.outside_bytes}
    named, limit = Budget.parse("3.5bpw,2KB").tightest(space)["bytes"]
    assert (str(named), limit) == ("2KB", 2_000 - space.outside_bytes)


@pytest.mark.parametrize(("text", "named"), [("9ms", "latency:table=FILE"), ("9Gbops", "bops")])
def test_a_quantity_without_a_cost_names_what_to_add(space, text, named):
    assert Budget.parse(text).limits(space) == {}
    with pytest.raises(InvalidArgument, match=named):
        Budget.parse(text).limits(space, ())
    with pytest.raises(InvalidArgument, match=named):
        Study("m", Budget.parse(text))


def test_the_smallest_budget_that_holds_a_time_counts_what_is_outside(space, costs):
    assert str(Budget.parse("1us@b2").holding(space, costs[0], 2000)) == "2.5us@b2"


def test_json_keeps_one_size_as_it_was_and_all_of_several():
    one = Study("m", Budget.parse("3.5bpw"))
    assert json.loads(one.to_json())["budget"] == {"value": 3.5, "unit": "bpw"}
    costs = (Choice("memory"), Choice("roofline"), Choice("bops"))
    several = Study("m", Budget.parse("3.5bpw,12ms@b1c2048,2Tbops"), costs=costs)
    assert Study.from_json(several.to_json()) == several
