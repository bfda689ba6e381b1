"""What the exact solvers promise where exhaustive search cannot follow."""

import numpy as np
import pytest
from instances import random_problem, wild_tables

from bitfront.errors import InfeasibleBudget, InvalidArgument
from bitfront.problem import Problem
from bitfront.solvers import SOLVERS
from bitfront.solvers.cp_sat import CpSat
from bitfront.solvers.dynamic_programming import DynamicProgramming
from bitfront.solvers.exhaustive import Exhaustive
from bitfront.solvers.lagrangian import Lagrangian, open_formats
from bitfront.table import LayerTable


@pytest.mark.parametrize("seed", range(12))
def test_dynamic_programming_and_cp_sat_agree_on_forty_groups(seed):
    problem = random_problem(np.random.default_rng(seed), 40, 6, fraction=0.1 + 0.07 * seed)
    one, other = DynamicProgramming().solve(problem), CpSat().solve(problem)
    assert one.optimal
    assert other.optimal
    assert one.loss == pytest.approx(other.loss, rel=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_formats_that_bounds_rule_out_are_in_no_better_choice(seed):
    problem = random_problem(np.random.default_rng(seed), 6, 4, fraction=0.4)
    incumbent = Lagrangian(n_exchanges=0).solve(problem)
    best = Exhaustive().solve(problem)
    if incumbent.optimal or best.loss >= incumbent.loss:
        return
    limit = problem.limits["bytes"]
    kept = open_formats(problem.group_loss, problem.group_costs[0], limit, incumbent)
    assert kept[np.arange(6), best.choice].all()


def test_bounds_rule_out_most_formats_of_a_large_problem():
    problem = random_problem(np.random.default_rng(0), 300, 6, fraction=0.4)
    incumbent = Lagrangian().solve(problem)
    limit = problem.limits["bytes"]
    kept = open_formats(problem.group_loss, problem.group_costs[0], limit, incumbent)
    assert kept.sum() < 0.4 * problem.space.group_allowed.sum()


@pytest.mark.parametrize("max_bins", [5, 700])
@pytest.mark.parametrize("seed", range(20))
def test_too_few_bins_stay_feasible_with_a_true_bound(seed, max_bins):
    problem = random_problem(np.random.default_rng(seed), 6, 4, fraction=0.4)
    coarse = DynamicProgramming(max_bins=max_bins).solve(problem)
    best = Exhaustive().solve(problem).loss
    assert problem.is_feasible(coarse.choice)
    assert coarse.lower_bound <= best * (1 + 1e-12)
    assert coarse.loss <= Lagrangian().solve(problem).loss
    assert not coarse.optimal or coarse.loss == pytest.approx(best)


def test_costs_that_are_no_whole_numbers_stay_within_the_limit():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        whole = random_problem(rng, 5, 4, fraction=0.5)
        seconds = LayerTable(whole.space, whole.costs[0].values * 1.1e-7, "seconds")
        limits = {"seconds": whole.limits["bytes"] * 1.1e-7}
        problem = Problem(whole.loss, (seconds,), limits)
        solution = DynamicProgramming().solve(problem)
        assert problem.is_feasible(solution.choice)
        best = Exhaustive().solve(problem).loss
        assert solution.lower_bound <= best * (1 + 1e-9)
        with pytest.raises(InvalidArgument, match="whole numbers"):
            CpSat().solve(problem)


@pytest.mark.parametrize("seed", range(20))
def test_cp_sat_takes_two_limits(seed):
    share = 0.4 if seed % 2 else 0.03  # of the range of costs; below, some cannot be met together
    problem = random_problem(np.random.default_rng(seed), 5, 4, wild_tables, fraction=share)
    bits = problem.cost("code_bits").grouped
    low = bits.min(axis=1).sum()
    high = np.where(np.isfinite(bits), bits, 0).max(axis=1).sum()
    limits = dict(problem.limits) | {"code_bits": float(np.floor(low + share * (high - low)))}
    both = problem.with_limits(limits)
    best, solution = outcome(Exhaustive(), both), outcome(CpSat(), both)
    if isinstance(best, InfeasibleBudget):
        assert solution.smallest == best.smallest
    else:
        assert both.is_feasible(solution.choice)
        assert solution.loss == pytest.approx(best.loss, abs=1e-9)
        assert solution.lower_bound <= best.loss + 1e-9


def outcome(solver, problem):
    try:
        return solver.solve(problem)
    except InfeasibleBudget as error:
        return error


def test_cp_sat_out_of_time_still_answers_with_a_bound():
    problem = random_problem(np.random.default_rng(1), 60, 6, fraction=0.4)
    hurried = CpSat(time_limit=1e-6).solve(problem)
    exact = DynamicProgramming().solve(problem)
    assert problem.is_feasible(hurried.choice)
    assert hurried.lower_bound <= exact.loss * (1 + 1e-12) <= hurried.loss * (1 + 1e-9)


def test_a_coarse_resolution_widens_the_bound_not_the_truth():
    for seed in range(10):
        problem = random_problem(np.random.default_rng(seed), 6, 4, fraction=0.4)
        coarse = CpSat(resolution=1e-3).solve(problem)
        assert coarse.lower_bound <= Exhaustive().solve(problem).loss * (1 + 1e-12)


def test_exhaustive_refuses_what_it_cannot_finish():
    problem = random_problem(np.random.default_rng(0), 40, 4)
    with pytest.raises(InvalidArgument, match="use 'dynamic_programming' or 'cp_sat'"):
        SOLVERS.build("exhaustive").solve(problem)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("cp_sat", {"time_limit": 0.0}),
        ("cp_sat", {"n_workers": 0}),
        ("cp_sat", {"resolution": 1.0}),
        ("dynamic_programming", {"max_bins": 0}),
        ("exhaustive", {"max_choices": 0}),
        ("random", {"n_rounds": 0}),
        ("waterfill", {"n_bisections": 0}),
    ],
)
def test_values_out_of_range_are_refused(name, params):
    with pytest.raises(InvalidArgument, match="give"):
        SOLVERS.build(name, params)
