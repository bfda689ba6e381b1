"""Problems at smaller limits: those that hold together, by no solver where it is plain."""

import numpy as np
import pytest

from bitfront.errors import InfeasibleBudget
from bitfront.search import base
from bitfront.search.base import below
from bitfront.solvers import SOLVERS
from tests.instances import many_limits

SPREAD, INDICES = 0.3, range(12)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_looked_at_is_what_a_solver_would_say(seed):
    """Itself where the other limits contradict each other, else all limits by one factor."""
    problem = many_limits(np.random.default_rng(seed), n_limits=2 + seed % 2)
    for index in INDICES:
        other = below(problem, SPREAD, index)
        if other is not problem:
            SOLVERS.build("lagrangian").solve(other)
            continue
        factor = 1 - SPREAD * ((index + 1) * base._GOLDEN % 1)
        limits = {q: float(np.floor(limit * factor)) for q, limit in problem.limits.items()}
        with pytest.raises(InfeasibleBudget):
            SOLVERS.build("lagrangian").solve(problem.with_limits(limits))


def test_no_solver_runs_where_the_cheapest_meets_all_limits(monkeypatch):
    """With limits that leave room everywhere."""
    rng = np.random.default_rng(0)
    problem = many_limits(rng)
    problem = problem.with_limits({q: 10 * limit for q, limit in problem.limits.items()})
    monkeypatch.setattr(base, "SOLVERS", None)
    others = [below(problem, SPREAD, index) for index in INDICES]
    assert all(other is not problem for other in others)
    assert len({tuple(other.limits.values()) for other in others}) == len(others)
    for other in others:
        assert all(0.7 * x <= other.limits[q] + 1 <= x for q, x in problem.limits.items())
