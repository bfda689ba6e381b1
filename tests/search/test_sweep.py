"""What the sweep promises beyond the contract."""

import numpy as np
import pytest
from instances import interacting_study, run_search, with_time

from bitfront.errors import InvalidArgument
from bitfront.search.sweep import Sweep
from bitfront.solvers import SOLVERS


def test_first_proposal_is_the_solution_at_the_budget():
    problem, _ = interacting_study(0)
    solution = SOLVERS.build("lagrangian").solve(problem)
    asked = Sweep().ask(problem, (), 1, np.random.default_rng(0))
    assert asked == [problem.space.decode(solution.choice)]


def test_proposals_go_down_from_the_budget_to_the_spread():
    problem, measure = interacting_study(0)
    trials = run_search(Sweep(spread=0.2), problem, measure, 14)
    sizes = np.array([t.values["bytes"] for t in trials if t.origin != "uniform"])
    shares = sizes / problem.limits["bytes"]
    assert shares.max() <= 1
    assert 0.75 < shares.min() < 0.85


def test_a_second_limit_that_only_some_spreads_meet_is_no_error():
    problem, _ = interacting_study(0)
    bits = problem.cost("code_bits")
    least = bits.grouped.min(axis=1).sum()
    both = problem.with_limits(dict(problem.limits) | {"code_bits": float(least * 1.3)})
    asked = Sweep(solver="cp_sat", n_limits=2, n_refinements=0).ask(
        both, (), 3, np.random.default_rng(0)
    )
    assert both.is_feasible(both.space.encode(asked[0]))


@pytest.mark.parametrize("params", [{"spread": 0.0}, {"spread": 1.0}, {"n_limits": 0}])
def test_values_out_of_range_are_refused(params):
    with pytest.raises(InvalidArgument, match="give 0 < spread < 1"):
        Sweep(**params)


def test_an_exact_solver_proposes_the_optimum_within_several_limits():
    """The first proposal is the best choice that keeps bytes, bits and time, by enumeration."""
    problem = with_time(interacting_study(1)[0])
    asked = Sweep("cp_sat").ask(problem, (), 4, np.random.default_rng(0))
    best = SOLVERS.build("exhaustive").solve(problem)
    assert problem.loss.total(problem.space.encode(asked[0])) == pytest.approx(best.loss)
    assert problem.is_feasible(problem.space.encode(asked[0]))
    assert len(set(asked)) == len(asked) == 4
