"""What the Lagrangian solver promises beyond the contract: whole fronts, fast, small gaps."""

import time
from dataclasses import replace

import numpy as np
import pytest
from instances import many_limits, random_problem

from bitfront import formats
from bitfront.costs import COSTS
from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.solvers import SOLVERS
from bitfront.solvers.base import Steps, way_down
from bitfront.solvers.lagrangian import Lagrangian
from bitfront.space import Layer, SearchSpace
from bitfront.table import LayerTable


def large_problem(n_layers, seed=0):
    rng = np.random.default_rng(seed)
    sizes = (1024, 2048, 4096)
    layers = tuple(
        Layer(f"layers.{i}.x", (int(rng.choice(sizes)), int(rng.choice(sizes))), str(i))
        for i in range(n_layers)
    )
    menu = tuple(formats.named(f"int{bits}_g64") for bits in (2, 3, 4, 5, 6, 8))
    space = SearchSpace(layers, menu)
    bits = np.array([f.num_bits for f in menu])
    noise = rng.lognormal(0, 0.3, (n_layers, len(menu)))
    loss = rng.lognormal(0, 1.5, (n_layers, 1)) * 4.0**-bits * noise
    costs = COSTS.build("memory").cost(space)
    return Problem(LayerTable(space, loss, "kl"), costs, {"bytes": 1e15})


def spread_limits(problem, n_limits):
    costs = problem.cost("bytes").grouped
    ends = costs.min(axis=1).sum(), costs.max(axis=1).sum()
    return [{"bytes": float(x)} for x in np.floor(np.linspace(*ends, n_limits + 2)[1:-1])]


def test_front_of_thousands_of_layers_has_a_proven_gap_below_a_ten_thousandth():
    problem = large_problem(20_000)
    limits = spread_limits(problem, 10)
    start = time.process_time()
    solutions = Lagrangian().front(problem, limits)
    seconds = time.process_time() - start
    for each, solution in zip(limits, solutions, strict=True):
        assert problem.with_limits(each).is_feasible(solution.choice)
        assert solution.gap < 1e-4
    assert seconds < 5


def test_the_proven_gap_covers_the_true_one():
    problem = large_problem(60)
    limits = spread_limits(problem, 20)
    exact = SOLVERS.build("dynamic_programming").front(problem, limits)
    for ours, best in zip(Lagrangian().front(problem, limits), exact, strict=True):
        assert best.optimal
        assert ours.lower_bound <= best.loss * (1 + 1e-12)
        assert ours.loss - best.loss <= ours.gap * ours.loss + 1e-12


def test_more_budget_never_bounds_higher():
    problem = large_problem(60)
    bounds = [s.lower_bound for s in Lagrangian().front(problem, spread_limits(problem, 30))]
    assert (np.diff(bounds) <= 1e-12).all()


def test_hull_steps_fall_in_rate_and_leave_no_format_below_the_hull():
    rng = np.random.default_rng(0)
    loss, costs = rng.normal(size=(50, 6)), rng.integers(1, 30, (50, 6)).astype(float)
    steps = Steps.along(way_down(loss, costs, convex=True), loss, costs)
    assert (np.diff(steps.rate) <= 0).all()
    for row in range(50):
        way = list(dict.fromkeys(steps.way[row].tolist()))
        hull_cost, hull_loss = costs[row, way], loss[row, way]
        assert (np.diff(hull_cost) > 0).all()
        inside = costs[row] >= hull_cost[0]
        hull = np.interp(costs[row], hull_cost, hull_loss)
        assert (loss[row, inside] >= hull[inside] - 1e-12).all()


def test_the_plain_way_passes_every_format_that_is_not_dominated():
    loss = np.array([[9.0, 8.0, 1.0, 1.0, 0.5]])
    costs = np.array([[1.0, 2.0, 3.0, 4.0, 4.0]])
    assert way_down(loss, costs, convex=False).tolist() == [[0, 1, 2, 4, 4]]
    assert way_down(loss, costs, convex=True).tolist() == [[0, 2, 4, 4, 4]]


def test_a_good_step_behind_a_bad_one_waits_for_it():
    loss = np.array([[9.0, 8.0, 1.0], [9.0, 6.0, 5.9]])
    costs = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    steps = Steps.along(way_down(loss, costs, convex=False), loss, costs)
    assert steps.group.tolist() == [1, 0, 0, 1]


def test_exchanges_help():
    gains = []
    for seed in range(60):
        problem = random_problem(np.random.default_rng(seed), 12, 5)
        plain = Lagrangian(n_exchanges=0).solve(problem).loss
        gains.append(plain - Lagrangian().solve(problem).loss)
    assert min(gains) >= -1e-12
    assert np.mean(np.array(gains) > 1e-12) > 0.1


def test_multiplier_is_the_price_of_the_bound():
    problem = large_problem(60)
    limit = spread_limits(problem, 3)[1]["bytes"]
    here, there = Lagrangian().front(problem, [{"bytes": limit}, {"bytes": limit + 1024}])
    saved = here.lower_bound - there.lower_bound
    assert saved == pytest.approx(1024 * here.multiplier, rel=0.05)


@pytest.mark.parametrize("params", [{"n_exchanges": -1}, {"tolerance": 1.0}, {"window": 0}])
def test_values_out_of_range_are_refused(params):
    with pytest.raises(InvalidArgument, match="give n_exchanges >= 0"):
        Lagrangian(**params)


def test_several_limits_of_nothing_leave_the_free_formats():
    """Where a limit is 0 only formats that cost nothing of it are left; the best of those."""
    problem = many_limits(np.random.default_rng(1), 6, 4, 3)
    free = np.full(problem.loss.values.shape, 7.0)
    free[:, [0, 2]] = 0.0
    costs = (*problem.costs[:2], LayerTable(problem.space, free, "latency_ns"))
    limits = {"bytes": np.inf, "latency_ns": 0.0}
    solution = Lagrangian().solve(replace(problem, costs=costs, limits=limits))
    allowed = problem.space.group_allowed[:, [0, 2]]
    best = np.where(allowed, problem.group_loss[:, [0, 2]], np.inf).min(axis=1).sum()
    assert solution.loss == pytest.approx(best)


def test_the_bound_of_several_limits_is_close_on_many_groups():
    """On 300 groups the relaxation is nearly exact, and the choice near its bound."""
    problem = many_limits(np.random.default_rng(0), 300, 5, 3)
    solution = Lagrangian().solve(problem)
    assert problem.is_feasible(solution.choice)
    assert solution.gap < 1e-3
