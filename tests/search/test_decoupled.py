"""Two metrics, two groups of layers: each proposal is the best of its own division."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from instances import interacting_study, random_problem, realistic_tables

from bitfront.errors import InvalidArgument
from bitfront.search.decoupled import Decoupled
from bitfront.search.sweep import Sweep
from bitfront.second import SecondLoss
from bitfront.solvers.cp_sat import CpSat
from bitfront.trial import Trial


@pytest.fixture
def problem():
    """Six groups, four formats; every other group is judged by a second table."""
    rng = np.random.default_rng(9)
    one = random_problem(rng, 6, 4, fraction=0.4)
    second, _ = realistic_tables(rng, one.space)
    of_second = np.arange(6) % 2 == 1
    return replace(one, second=SecondLoss(second, of_second))


def losses(problem, choice):
    """Of each metric over its own groups, and the bytes of either part."""
    rows = np.arange(len(choice))
    mine = problem.second.of_second
    tables = problem.loss.grouped, problem.second.table.grouped, problem.cost("bytes").grouped
    first, second, size = (np.where(np.isfinite(x), x, 0)[rows, choice] for x in tables)
    return first[~mine].sum(), second[mine].sum(), size[~mine].sum(), size[mine].sum()


def asked(search, problem, n=40):
    return search.ask(problem, (), n, np.random.default_rng(0))


def test_no_division_of_the_budget_has_a_better_solution_than_a_proposal(problem):
    """By enumeration: within the bytes that a proposal gives each part, nothing loses less."""
    options = [np.flatnonzero(row) for row in problem.space.group_allowed]
    everything = np.array([losses(problem, np.array(c)) for c in product(*options)])
    proposals = asked(Decoupled(), problem)
    assert len(proposals) > 3
    for allocation in proposals:
        choice = problem.space.encode(allocation)
        assert problem.is_feasible(choice)
        mine = losses(problem, choice)
        as_small = everything[(everything[:, 2:] <= mine[2:]).all(axis=1)]
        assert (as_small[:, :2].min(axis=0) >= np.array(mine[:2]) - 1e-9).all()


def test_weights_walk_from_one_metric_to_the_other(problem):
    found = [losses(problem, problem.space.encode(a))[:2] for a in asked(Decoupled(), problem)]
    found.sort()
    first, second = np.array(found).T
    assert (np.diff(first) > 0).all()
    assert (np.diff(second) < 0).all()


def test_together_every_layer_is_judged_by_both(problem):
    """At a large weight the sum is all but the second table, solved over all groups."""
    heavy = Decoupled(together=True, max_weight=2.0**30, n_refinements=0)
    alone = problem.with_loss(problem.second.table)
    best = Sweep("cp_sat").ask(alone, (), 1, np.random.default_rng(0))[0]
    assert best in asked(heavy, problem, 100)


def test_measured_proposals_are_not_asked_again_and_the_order_stays(problem):
    whole = asked(Decoupled(), problem, 5)
    history = [Trial(i, a, "calibration", "decoupled") for i, a in enumerate(whole[:3])]
    rest = Decoupled().ask(problem, history, 2, np.random.default_rng(7))
    assert rest == whole[3:]


def test_a_weight_is_solved_once_however_often_proposals_are_asked_for(problem, monkeypatch):
    solved, solve = [], CpSat.solve
    monkeypatch.setattr(CpSat, "solve", lambda *args: solved.append(args) or solve(*args))
    problem = replace(problem, limits={"bytes": 1.1 * problem.limits["bytes"]})  # not yet known
    history = []
    for number in range(3):
        again = replace(problem, limits=dict(problem.limits))  # as a worker makes it anew
        (made,) = Decoupled().ask(again, history, 1, np.random.default_rng(number))
        history.append(Trial(number, made, "calibration", "decoupled"))
    once = len(solved)
    assert 2 + 3 <= once <= 2 + len(list(Decoupled()._weights()))
    assert [t.allocation for t in history] == asked(Decoupled(), problem, 3)
    assert len(solved) == once


def test_without_a_second_table_it_is_the_sweep():
    problem, _ = interacting_study(0)
    assert asked(Decoupled(), problem, 6) == asked(Sweep(), problem, 6)


@pytest.mark.parametrize(
    "params", [{"max_weight": 1.0}, {"n_refinements": -1}, {"n_refinements": 30}]
)
def test_values_out_of_range_are_refused(params):
    with pytest.raises(InvalidArgument, match="max_weight from 2"):
        Decoupled(**params)


def test_layers_go_to_the_metric_that_they_hurt_more(problem):
    """A table in other units divides the layers in the same way."""
    space, second = problem.space, problem.second.table
    scaled = replace(second, values=1000 * second.values)
    divided = SecondLoss.of(problem.loss, scaled).of_second
    assert divided.any()
    assert not divided.all()
    assert (divided == SecondLoss.of(problem.loss, second).of_second).all()
    values = problem.loss.values.copy()
    values[[row for row, group in enumerate(space.group_of) if group == 2]] *= 100
    heavier = SecondLoss.of(problem.loss, replace(second, values=values)).of_second
    assert heavier.tolist() == [group == 2 for group in range(6)]


def test_patterns_name_the_layers_of_the_second_metric(problem):
    made = SecondLoss.of(problem.loss, problem.second.table, "*.layers.1.*, *.layers.4.*")
    assert np.flatnonzero(made.of_second).tolist() == [1, 4]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("nothing", "takes 0 of"), ("*", "take some of them"), ("*.part1", "shares a format with")],
)
def test_patterns_that_divide_nothing_or_a_group_are_refused(problem, pattern, expected):
    with pytest.raises(InvalidArgument, match=expected):
        SecondLoss.of(problem.loss, problem.second.table, pattern)


def test_pairs_of_one_metric_are_refused():
    with pytest.raises(InvalidArgument, match="pairs of layers are measured of one"):
        Decoupled(solver="quadratic")
