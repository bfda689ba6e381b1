from dataclasses import replace

import numpy as np
import pytest
from instances import random_problem, random_space, realistic_tables

from bitfront.errors import InfeasibleBudget, InvalidArgument
from bitfront.problem import Problem


@pytest.fixture
def problem():
    return random_problem(np.random.default_rng(0), 6, 4, fraction=0.5)


def test_limit_without_a_cost_table_is_refused(problem):
    with pytest.raises(InvalidArgument, match=r"'seconds'.*Available: bytes, code_bits"):
        problem.with_limits({"seconds": 1.0})


def test_tables_of_different_spaces_are_refused(problem):
    other = random_space(np.random.default_rng(1), 3, 3)
    with pytest.raises(InvalidArgument, match="different search spaces"):
        Problem(problem.loss, realistic_tables(np.random.default_rng(1), other)[1], {})


@pytest.mark.parametrize("limit", [0.0, -5.0, float("nan")])
def test_infeasible_limit_carries_the_smallest_reachable(problem, limit):
    with pytest.raises(InfeasibleBudget) as error:
        problem.with_limits({"bytes": limit})
    smallest = error.value.smallest
    assert smallest == problem.cost("bytes").grouped.min(axis=1).sum()
    assert problem.with_limits({"bytes": smallest}).limits == {"bytes": smallest}


def test_feasible_means_it_fits_and_every_limit_holds(problem):
    cheapest = problem.cost("bytes").grouped.argmin(axis=1)
    dearest = np.where(problem.space.group_allowed, problem.group_costs[0], -1).argmax(axis=1)
    assert problem.is_feasible(cheapest)
    assert not problem.is_feasible(dearest)
    row = int(np.flatnonzero(~problem.space.group_allowed.all(axis=1))[0])
    misfit = cheapest.copy()
    misfit[row] = int(np.flatnonzero(~problem.space.group_allowed[row])[0])
    assert not problem.with_limits({}).is_feasible(misfit)


def test_costs_come_in_the_order_of_the_limits(problem):
    limits = {"code_bits": 1e12, "bytes": 1e12}
    both = problem.with_limits(limits)
    assert both.group_costs.shape == (2, 6, 4)
    np.testing.assert_array_equal(both.group_costs[1], problem.cost("bytes").grouped)
    assert problem.with_limits({}).group_costs.shape == (0, 6, 4)


def test_with_loss_keeps_costs_and_limits(problem):
    other = problem.with_loss(replace(problem.loss, values=problem.loss.values / 2))
    assert other.limits == problem.limits
    assert other.costs is problem.costs
