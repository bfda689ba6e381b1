"""What every solver promises, over all solvers there are."""

import pickle

import numpy as np
import pytest
from cases import SOLVERS as CLAIMS
from cases import SOLVERS_OF_SEVERAL_LIMITS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from instances import many_limits, random_problem, realistic_tables, wild_tables

from bitfront.errors import InfeasibleBudget, InvalidArgument
from bitfront.solvers import SOLVERS

NAMES = SOLVERS.names()


@pytest.fixture(params=NAMES)
def solver(request):
    return SOLVERS.build(request.param)


@pytest.fixture(scope="module")
def problems():
    """200 random problems of up to 6 groups and 6 formats with their optimal losses."""
    made = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        n_formats = int(rng.integers(2, 7))
        problem = random_problem(rng, int(rng.integers(1, 6 if n_formats > 4 else 7)), n_formats)
        made.append((problem, SOLVERS.build("exhaustive").solve(problem).loss))
    return made


@pytest.fixture(scope="module")
def wild_problems():
    """100 problems with losses of any sign, ties, and costs that do not rise with bits."""
    made = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, int(rng.integers(1, 6)), 4, wild_tables)
        made.append((problem, SOLVERS.build("exhaustive").solve(problem).loss))
    return made


@pytest.mark.parametrize("name", NAMES)
def test_claimed_gap_to_exhaustive_holds(name, problems):
    solver, gaps = SOLVERS.build(name), []
    for problem, optimum in problems:
        gaps.append((solver.solve(problem).loss - optimum) / optimum)
    worst, mean = CLAIMS[name]
    assert max(gaps) <= worst + 1e-9
    assert np.mean(gaps) <= mean + 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_bounds_and_optimality_are_true(name, problems, wild_problems):
    solver = SOLVERS.build(name)
    for problem, optimum in problems + wild_problems:
        solution = solver.solve(problem)
        slack = 1e-9 * (abs(optimum) + np.abs(problem.loss.values).max())
        assert problem.is_feasible(solution.choice)
        assert solution.loss == pytest.approx(problem.loss.total(solution.choice), abs=slack)
        assert solution.lower_bound <= optimum + slack
        assert solution.loss >= optimum - slack
        if solution.optimal or CLAIMS[name] == (0.0, 0.0):
            assert solution.loss <= optimum + slack
            assert solution.gap == 0.0


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1),
    n_groups=st.integers(1, 12),
    n_formats=st.integers(2, 6),
    fraction=st.floats(0, 1),
    wild=st.booleans(),
)
@pytest.mark.parametrize("name", [n for n in NAMES if n != "exhaustive"])
def test_no_choice_exceeds_its_limit_or_misfits(name, seed, n_groups, n_formats, fraction, wild):
    tables = wild_tables if wild else realistic_tables
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, n_groups, n_formats, tables, fraction)
    choice = SOLVERS.build(name).solve(problem).choice
    rows = np.arange(n_groups)
    assert problem.cost("bytes").grouped[rows, choice].sum() <= problem.limits["bytes"]
    assert problem.space.group_allowed[rows, choice].all()
    assert choice.dtype == np.int64


def test_the_smallest_reachable_budget_is_met_exactly(solver):
    problem = random_problem(np.random.default_rng(3), 6, 4, fraction=0.0)
    solution = solver.solve(problem)
    assert problem.cost("bytes").total(solution.choice) == problem.limits["bytes"]


def test_below_the_smallest_budget_says_so(solver):
    problem = random_problem(np.random.default_rng(3), 4, 4, fraction=0.0)
    smallest = problem.limits["bytes"]
    with pytest.raises(InfeasibleBudget, match=f"smallest reachable is {smallest:,.0f}") as error:
        solver.solve(problem.with_limits({"bytes": smallest - 1}))
    assert error.value.smallest == smallest


@pytest.mark.parametrize("limits", [{}, {"bytes": np.inf}], ids=["no limit", "infinite limit"])
def test_without_a_binding_limit_every_group_takes_its_best(solver, limits):
    problem = random_problem(np.random.default_rng(4), 5, 4).with_limits(limits)
    solution = solver.solve(problem)
    best = problem.group_loss.min(axis=1).sum()
    assert problem.is_feasible(solution.choice)
    if CLAIMS[type(solver).__module__.rpartition(".")[2]][0] < 0.05:
        assert solution.loss == pytest.approx(best)


def test_two_limits_hold_together_or_are_refused_clearly(solver):
    name = type(solver).__module__.rpartition(".")[2]
    problem = random_problem(np.random.default_rng(5), 5, 4)
    bits = problem.cost("code_bits")
    low, high = bits.grouped.min(axis=1).sum(), bits.total(np.full(5, 0))
    both = problem.with_limits(dict(problem.limits) | {"code_bits": float((low + high) // 2)})
    if name in SOLVERS_OF_SEVERAL_LIMITS:
        assert both.is_feasible(solver.solve(both).choice)
    else:
        with pytest.raises(InvalidArgument, match="cp_sat"):
            solver.solve(both)


@pytest.fixture(scope="module")
def several_limits():
    """100 problems of two or three limits with their optimal losses; a few cannot be met."""
    made = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        tables = wild_tables if seed % 4 == 3 else realistic_tables
        n_groups, n_formats = int(rng.integers(2, 7)), int(rng.integers(2, 6))
        problem = many_limits(rng, n_groups, n_formats, int(rng.integers(2, 4)), tables)
        try:
            made.append((problem, SOLVERS.build("exhaustive").solve(problem).loss))
        except InfeasibleBudget:
            made.append((problem, None))
    return made


@pytest.mark.parametrize("name", SOLVERS_OF_SEVERAL_LIMITS)
def test_several_limits_hold_together_within_the_claimed_gap(name, several_limits):
    solver, gaps = SOLVERS.build(name), []
    for problem, optimum in several_limits:
        try:
            solution = solver.solve(problem)
        except InfeasibleBudget:
            # `uniform` knows a handful of choices only.
            assert optimum is None or name == "uniform"
            continue
        assert optimum is not None
        slack = 1e-9 * (abs(optimum) + np.abs(problem.loss.values).max())
        assert problem.is_feasible(solution.choice)
        assert solution.lower_bound <= optimum + slack
        assert not solution.optimal or solution.loss <= optimum + slack
        if (problem.loss.values > 0).all():
            gaps.append((solution.loss - optimum) / optimum)
    assert any(optimum is None for _, optimum in several_limits)
    worst, mean = SOLVERS_OF_SEVERAL_LIMITS[name]
    assert max(gaps) <= worst + 1e-9
    assert np.mean(gaps) <= mean + 1e-9


def test_same_problem_same_answer(solver):
    problem = random_problem(np.random.default_rng(6), 6, 4)
    first, second = solver.solve(problem), solver.solve(problem)
    np.testing.assert_array_equal(first.choice, second.choice)
    assert (first.loss, first.lower_bound) == (second.loss, second.lower_bound)


def test_input_is_untouched(solver):
    problem = random_problem(np.random.default_rng(7), 5, 4)
    before = [problem.group_loss.copy(), problem.group_costs.copy(), problem.loss.values.copy()]
    solver.front(problem, [problem.limits])
    after = [problem.group_loss, problem.group_costs, problem.loss.values]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


def test_front_gives_what_solve_gives(solver):
    problem = random_problem(np.random.default_rng(8), 5, 4, fraction=0.3)
    limits = [{"bytes": float(np.floor(problem.limits["bytes"] * s))} for s in (1.0, 1.3, 1.1)]
    for each, solution in zip(limits, solver.front(problem, limits), strict=True):
        alone = solver.solve(problem.with_limits(each))
        np.testing.assert_array_equal(solution.choice, alone.choice)


def test_survives_pickling(solver):
    assert pickle.loads(pickle.dumps(solver)) == solver


def test_every_solver_has_a_claim():
    assert set(CLAIMS) == set(NAMES)
