"""Quadratic: the optimum with pairs, against every choice there is."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from instances import random_problem

from bitfront.errors import InvalidArgument
from bitfront.solvers.cp_sat import CpSat
from bitfront.solvers.quadratic import Quadratic


def with_pairs(problem, rng, n_pairs=4, size=1.0):
    """The problem with interactions as large as its own losses, of either sign."""
    n_groups, n_formats = problem.group_loss.shape
    scale = size * float(np.abs(problem.loss.values).mean())
    pairs = {}
    for _ in range(n_pairs if n_groups > 1 else 0):
        first, second = sorted(rng.choice(n_groups, 2, replace=False).tolist())
        pairs[first, second] = rng.normal(size=(n_formats, n_formats)) * scale
    return replace(problem, pairs=pairs)


def optimum(problem):
    n_groups, n_formats = problem.group_loss.shape
    choices = (np.array(c) for c in product(range(n_formats), repeat=n_groups))
    return min(problem.total_loss(c) for c in choices if problem.is_feasible(c))


@pytest.mark.parametrize("seed", range(30))
def test_it_is_the_best_of_all_choices(seed):
    rng = np.random.default_rng(seed)
    problem = with_pairs(random_problem(rng, int(rng.integers(2, 6)), 4), rng)
    solution = Quadratic().solve(problem)
    best = optimum(problem)
    assert solution.optimal
    assert solution.loss == pytest.approx(best, rel=1e-6, abs=1e-9)
    assert solution.loss == pytest.approx(problem.total_loss(solution.choice))
    assert solution.lower_bound <= best + 1e-9


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1), fraction=st.floats(0, 1))
def test_limits_hold_and_it_never_loses_to_the_table_alone(seed, fraction):
    rng = np.random.default_rng(seed)
    problem = with_pairs(random_problem(rng, 10, 4, fraction=fraction), rng, 8)
    solution = Quadratic(time_limit=0.5).solve(problem)
    assert problem.is_feasible(solution.choice)
    assert solution.loss <= problem.total_loss(CpSat().solve(problem).choice) + 1e-12
    assert solution.lower_bound <= solution.loss


@pytest.mark.parametrize("seed", range(6))
def test_a_bound_is_true_however_early_the_search_ends(seed):
    rng = np.random.default_rng(seed)
    problem = with_pairs(random_problem(rng, 6, 4), rng, 8, size=3.0)
    solution = Quadratic(time_limit=1e-6).solve(problem)
    assert solution.lower_bound <= optimum(problem) + 1e-9
    assert problem.is_feasible(solution.choice)


def test_without_pairs_it_is_cp_sat():
    problem = random_problem(np.random.default_rng(1), 8, 4)
    np.testing.assert_array_equal(Quadratic().solve(problem).choice, CpSat().solve(problem).choice)


def test_pairs_of_no_group_are_refused():
    problem = random_problem(np.random.default_rng(1), 3, 4)
    for pair, values in (
        ((1, 1), np.zeros((4, 4))),
        ((0, 9), np.zeros((4, 4))),
        ((0, 1), np.zeros(4)),
    ):
        with pytest.raises(InvalidArgument, match="two of 3 groups"):
            replace(problem, pairs={pair: values})
