from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.pareto import ParetoFront, hypervolume, non_dominated, objectives
from bitfront.trial import Trial

SMALL = st.integers(0, 6).map(float)


def points(n_objectives):
    return st.integers(1, 12).flatmap(
        lambda n: arrays(np.float64, (n, n_objectives), elements=SMALL)
    )


def front(*pairs):
    return ParetoFront(
        tuple(
            Trial(i, Allocation({"a": str(i)}), "evaluation", "s", values={"kl": kl, "bytes": size})
            for i, (kl, size) in enumerate(pairs)
        )
    )


@given(points(2) | points(3))
def test_non_dominated_is_its_definition(rows):
    kept = non_dominated(rows)
    for index, row in enumerate(rows):
        beaten = ((rows <= row).all(axis=1) & (rows < row).any(axis=1)).any()
        twin_before = (rows[:index] == row).all(axis=1).any()
        assert kept[index] == (not beaten and not twin_before)


@given(points(2) | points(3))
def test_hypervolume_counts_the_dominated_cells(rows):
    n_objectives = rows.shape[1]
    cells = np.stack(np.meshgrid(*[np.arange(6)] * n_objectives), axis=-1).reshape(-1, n_objectives)
    dominated = (rows[None] <= cells[:, None]).all(axis=2).any(axis=1)
    assert hypervolume(rows, np.full(n_objectives, 6.0)) == pytest.approx(dominated.sum())


def test_dominated_trials_are_dropped_and_the_rest_sorted_by_size():
    made = front((1.0, 10.0), (0.5, 30.0), (0.7, 20.0), (0.8, 25.0), (1.0, 10.0))
    assert [t.number for t in made.trials] == [0, 2, 1]


def test_best_is_the_smallest_within_the_bounds():
    made = front((1.0, 10.0), (0.5, 30.0), (0.7, 20.0))
    assert made.best("kl").values["bytes"] == 30.0
    assert made.best("kl", bytes=25.0).values["bytes"] == 20.0
    assert made.best("bytes", kl=0.9).values["kl"] == 0.7


def test_a_quantity_that_points_do_not_state_is_not_within_a_bound_of_it():
    made = front((1.0, 10.0), (0.5, 30.0))
    with pytest.raises(InvalidArgument, match=r"the points state no latency_ns: .*bytes, kl"):
        made.best("kl", latency_ns=3e6, bytes=25.0)
    fast = replace(made.trials[0], values={"kl": 1.0, "bytes": 10.0, "latency_ns": 2e6})
    some = replace(made, trials=(fast, made.trials[1]))
    assert some.best("kl", latency_ns=3e6) == fast
    with pytest.raises(InvalidArgument, match=r"latency_ns <= 1; it has latency_ns >= 2e\+06"):
        some.best("kl", latency_ns=1.0)


def test_bounds_that_nothing_meets_name_what_there_is():
    with pytest.raises(InvalidArgument, match=r"No point of the front has bytes <= 5.*bytes >= 10"):
        front((1.0, 10.0), (0.5, 30.0)).best("kl", bytes=5.0)
    with pytest.raises(InvalidArgument, match="No point of the front"):
        front().best("kl")


def timed_trial(number, kl, size, latency, **others):
    values = {"kl": kl, "bytes": size, "bits": 1.0, "latency_ns": latency, **others}
    return Trial(number, Allocation({"a": str(number)}), "evaluation", "s", values=values)


def test_with_latency_a_front_has_three_dimensions_and_those_that_a_budget_bounds():
    trials = (timed_trial(0, 1.0, 10.0, 5.0, bops=1.0), timed_trial(1, 2.0, 20.0, 4.0, bops=2.0))
    assert objectives(trials) == ("kl", "bytes", "latency_ns")
    assert objectives(trials, ("bits_per_weight", "latency_ns")) == ("kl", "bytes", "latency_ns")
    assert objectives(trials, ("bits",)) == ("kl", "bytes", "latency_ns", "bits")
    assert objectives(trials, ("bops",)) == ("kl", "bytes", "latency_ns", "bops")
    assert objectives((*trials, *front((1.0, 2.0)).trials)) == ("kl", "bits", "bytes")
    assert objectives((), ("bops",)) == ("kl", "bits", "bytes")
    made = ParetoFront((*trials, timed_trial(2, 2.0, 20.0, 6.0)), objectives(trials))
    assert {t.number for t in made.trials} == {0, 1}  # slower, larger and no better: gone
    # 1 x 30 x 5 of the one, 0 of the other's that is not the one's: (3-2) x (40-20) x (5-4).
    assert made.hypervolume((3.0, 40.0, 10.0)) == pytest.approx(2 * 30 * 5 + 1 * 20 * 1)


def test_hypervolume_of_a_front_is_in_units_of_its_objectives():
    assert front((1.0, 10.0), (0.5, 30.0)).hypervolume((2.0, 40.0)) == pytest.approx(
        1 * 30 + 0.5 * 10
    )
    assert front().hypervolume((2.0, 40.0)) == 0.0
