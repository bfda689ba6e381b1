"""What genetic searches share: repair, switches, survivors, pins, and predictors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from instances import interacting_study, many_limits, random_problem, run_search

from bitfront.errors import InvalidArgument
from bitfront.pareto import non_dominated
from bitfront.search._genetic import Ladder, offspring, ranks, survivors
from bitfront.search._predictors import PREDICTORS, Predictor
from bitfront.search.amq import Amq, unpinned


@pytest.mark.parametrize("seed", range(20))
def test_repaired_choices_meet_the_limits_and_fit(seed):
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, 9, 5, fraction=float(rng.uniform(0.05, 0.9)))
    ladder = Ladder.of(problem)
    wild = ladder.admitted(rng.integers(5, size=(30, 9)))
    for choice in ladder.repaired(wild, rng):
        assert problem.is_feasible(choice)


def test_children_come_from_their_parents_or_a_switch():
    problem = random_problem(np.random.default_rng(1), 12, 4, fraction=0.5)
    ladder = Ladder.of(problem)
    rng = np.random.default_rng(2)
    parents = ladder.repaired(ladder.admitted(rng.integers(4, size=(16, 12))), rng)
    children = offspring(ladder, parents, 40, 0.9, rng)
    assert children.shape[1] == 12
    assert all(problem.is_feasible(child) for child in children)
    inherited = np.mean([(child[None] == parents).any(axis=0).mean() for child in children])
    assert inherited > 0.7


@given(arrays(np.int64, st.tuples(st.integers(0, 30), st.just(2)), elements=st.integers(0, 5)))
def test_fronts_of_two_objectives_are_those_of_any_number(points):
    """A third objective that is the same everywhere changes nothing, twins included."""
    flat = np.hstack([points, np.zeros((len(points), 1))])
    assert ranks(points.astype(float)).tolist() == ranks(flat).tolist()


def test_survivors_hold_the_front_first_and_spread_when_it_is_too_large():
    points = np.random.default_rng(3).random((60, 2))
    front = set(np.flatnonzero(non_dominated(points)))
    assert front <= set(survivors(points, 40))
    line = np.stack([np.linspace(0, 1, 50), np.linspace(1, 0, 50)], axis=1)
    kept = survivors(line, 5)
    assert {0, 49} <= set(kept)
    assert np.diff(np.sort(line[kept, 0])).max() < 0.6


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_predictor_ranks_unseen_allocations_better_than_the_table(name):
    problem, measure = interacting_study(3, n_groups=6)
    rng = np.random.default_rng(0)
    choices = rng.integers(4, size=(140, 6))
    kl = np.log([measure(problem.space.decode(c))["kl"] for c in choices])
    predictor = Predictor.fitted(name, problem, choices[:100], kl[:100], rng)

    def error(values):
        shifted = values - kl[100:]
        return float(np.std(shifted))

    table = np.log([problem.loss.total(c) for c in choices[100:]])
    assert error(predictor.predict(choices[100:])) < 0.8 * error(table)


def test_pinned_groups_never_take_the_fewest_bits():
    problem = random_problem(np.random.default_rng(4), 30, 5, fraction=0.6)
    allowed = unpinned(problem, pin_ratio=2.0)
    assert (allowed <= problem.space.group_allowed).all()
    bits = np.array([f.num_bits for f in problem.space.formats])
    pinned = (allowed != problem.space.group_allowed).any(axis=1)
    assert 0 < pinned.sum() < 30
    assert all(bits[row].min() > bits.min() for row in allowed[pinned])
    assert (unpinned(problem, pin_ratio=0.0) == problem.space.group_allowed).all()


def test_refuses_unknown_predictors():
    with pytest.raises(InvalidArgument, match="Did you mean 'ridge'"):
        Amq(predictor="rigde")


@pytest.mark.parametrize("seed", [20, 53])
def test_amq_goes_on_where_no_start_or_no_child_is_within_reach(seed):
    """Limits of which the order of repairs meets none, and sizes too coarse for the spread."""
    rng = np.random.default_rng(seed)
    if seed % 2:
        n_groups = int(rng.integers(2, 8))
        problem = random_problem(rng, n_groups, 4, fraction=rng.uniform(0.02, 1))
    else:
        problem = many_limits(rng, int(rng.integers(3, 8)), 4, 2 + seed % 3 // 2)
    noise = rng.lognormal(0, 0.3, 99)

    def measure(allocation):
        choice = problem.space.encode(allocation)
        kl = float(abs(problem.loss.total(choice) * noise[int(choice.sum())])) + 1e-9
        costs = {table.quantity: table.total(choice) for table in problem.costs}
        return {"kl": kl, "kl_stderr": 0.001, **costs, "bits": 1.0, "bits_per_weight": 1.0}

    trials = run_search(Amq(), problem, measure, 26)
    proposed = [problem.space.encode(t.allocation) for t in trials if t.origin != "uniform"]
    assert len(proposed) > 0
    assert all(map(problem.is_feasible, proposed))
