"""With slopes, trust_region finds what a table of single layers cannot know."""

from dataclasses import replace

import numpy as np
import pytest
from instances import interacting_study, random_problem

from bitfront.search.trust_region import TrustRegion
from bitfront.solvers.lagrangian import Lagrangian
from bitfront.table import LayerTable
from bitfront.trial import Trial


def quadratic_study(seed, n_groups=40, n_directions=80):
    """KL is half the squared length of the summed errors; the table knows each error alone.

    That is KL to second order: errors of different layers add up or cancel. Returns the problem,
    a function from allocation to values, and one from allocation to its slope table.
    """
    problem, _ = interacting_study(seed, n_groups=n_groups)
    space, rows = problem.space, np.arange(n_groups)
    alone = problem.group_loss
    errors = np.random.default_rng(seed).normal(size=(*alone.shape, n_directions))
    errors *= np.sqrt(2 * alone / (errors**2).sum(axis=2))[:, :, None]

    def measure(allocation):
        total = errors[rows, space.encode(allocation)].sum(axis=0)
        return {"kl": float(total @ total / 2)}

    def slope(allocation):
        held = errors[rows, space.encode(allocation)]
        return LayerTable(space, (errors - held[:, None]) @ held.sum(axis=0), "kl")

    return problem, measure, slope


def descended(problem, measure, slope, n_trials):
    """Trials of the loop of a study that measures slopes when asked; and how many it measured."""
    search, trials = TrustRegion(), []
    while len(trials) < n_trials:
        wanted = search.slope_at(problem, trials)
        if wanted is not None:
            problem = replace(problem, slopes={**problem.slopes, wanted: slope(wanted)})
        asked = search.ask(problem, trials, 1, np.random.default_rng(len(trials)))
        for allocation in asked:
            values = measure(allocation)
            trials.append(Trial(len(trials), allocation, "calibration", "x", values=values))
    return trials, len(problem.slopes)


def test_descent_starts_at_the_solved_table_and_ends_below_it():
    ratios = []
    for seed in range(6):
        problem, measure, slope = quadratic_study(seed)
        trials, _ = descended(problem, measure, slope, 16)
        solved = problem.space.decode(Lagrangian().solve(problem).choice)
        within = [t for t in trials if problem.is_feasible(problem.space.encode(t.allocation))]
        assert trials[0].allocation == solved
        ratios.append(min(t.values["kl"] for t in within) / trials[0].values["kl"])
    assert max(ratios) <= 1
    assert np.mean(ratios) < 0.9, ratios


def test_a_slope_serves_several_steps():
    _, n_slopes = descended(*quadratic_study(0), 16)
    assert 1 <= n_slopes <= 16 // TrustRegion().n_steps


def test_no_more_is_asked_than_wanted_when_a_slope_is_known_before_the_solved_table():
    """As in a folder whose budget was raised: all that was measured is within the new one."""
    problem, measure, slope = quadratic_study(0)
    uniform = problem.space.decode(problem.space.uniform(0))
    trial = Trial(0, uniform, "calibration", "uniform", values=measure(uniform))
    known = replace(problem, slopes={uniform: slope(uniform)})
    for n in range(4):
        assert len(TrustRegion().ask(known, [trial], n, np.random.default_rng(0))) == n


def test_nothing_is_asked_when_nothing_is_wanted():
    problem, _ = interacting_study(0)
    assert TrustRegion().ask(problem, [], 0, np.random.default_rng(0)) == []


@pytest.mark.parametrize("loss", [0.0, -1e-9])
def test_steps_start_where_nothing_was_lost(loss):
    """Some groups lack a format; NumPy's warnings are errors here."""
    problem = random_problem(np.random.default_rng(2), 8, 4, fraction=0.4)
    space = problem.space
    assert not space.group_allowed.all()
    base = space.decode(problem.group_costs[0].argmin(axis=1))
    slope = LayerTable(space, np.ones(space.allowed.shape), "kl")
    trials = [Trial(0, base, "calibration", "x", values={"kl": loss})]
    known = replace(problem, slopes={base: slope})
    asked = TrustRegion().ask(known, trials, 3, np.random.default_rng(0))
    assert asked
    assert all(problem.is_feasible(space.encode(allocation)) for allocation in asked)
