"""What the posterior's few steps end at: the mode of an optimizer, and no bad minimum."""

from itertools import islice

import numpy as np
import pytest
from instances import interacting_study, run_search
from scipy.optimize import least_squares

from bitfront.search import SEARCHES
from bitfront.search._posterior import Posterior, Prior, Scales
from bitfront.solvers import SOLVERS

SCALES = Scales(shared=0.35, group=0.15, entry=0.15, pair=0.2, noise=0.01)
LOG_KL = SCALES.noise
"""What predictions may differ by: what no measurement tells."""


def fitted(problem, measure, n, rng):
    """The posterior given random choices, and log kl as measured, `[n]`."""
    space = problem.space
    choices = rng.integers(0, len(space.formats), (n, len(space.groups)))
    kl = [measure(space.decode(choice))["kl"] for choice in choices]
    return Posterior.given(Prior.of(problem, SCALES), choices, np.log(kl)), np.log(kl)


def exact(posterior, target):
    """Mode and dual of the density that a posterior states, found without its Jacobians."""
    prior, scales = posterior.prior, posterior.prior.scales
    entry, pair = posterior.kernels
    own = scales.entry**2 * entry + scales.pair**2 * pair + scales.noise**2 * np.eye(len(target))
    factor = np.linalg.cholesky(own)

    def misfit(theta):
        residual = target - prior.predict(posterior.choices, theta)[0]
        return np.concatenate([np.linalg.solve(factor, residual), theta / prior.sd])

    start = np.zeros(len(prior.sd))
    found = least_squares(misfit, start, "3-point", ftol=1e-12, xtol=1e-12, gtol=1e-9)
    assert found.success
    residual = target - prior.predict(posterior.choices, found.x)[0]
    return found.x, np.linalg.solve(factor.T, np.linalg.solve(factor, residual))


@pytest.mark.parametrize("n_groups", [6, 24])
@pytest.mark.parametrize("n", [1, 6, 25])
def test_mode_and_entries_are_those_of_the_exact_mode(n_groups, n):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        found, target = fitted(*interacting_study(seed, n_groups), n, rng)
        mode, dual = exact(found, target)
        others = rng.integers(0, found.prior.log_table.shape[1], (200, n_groups))
        ours, theirs = (found.prior.predict(others, x)[0] for x in (found.mode, mode))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=LOG_KL)
        ours, theirs = (found.entries(x) for x in (found.dual, dual))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=LOG_KL)


@pytest.mark.parametrize("seed", range(6))
def test_no_minimum_is_above_the_choice_that_its_steps_start_from(seed):
    """By its own belief, of the mean and of draws"""
    rng = np.random.default_rng(seed)
    problem, measure = interacting_study(seed, 12)
    trials = run_search(SEARCHES.build("posterior_ilp"), problem, measure, 60)
    trials.sort(key=lambda trial: trial.loss)
    choices = np.array([problem.space.encode(t.allocation) for t in trials])
    target = np.log([trial.loss for trial in trials])
    found = Posterior.given(Prior.of(problem, SCALES), choices, target)
    best, solver = found.best(problem), SOLVERS.build("lagrangian")
    for belief in islice(found.beliefs(1.0, rng), 8):
        least = belief.minimum(problem, solver, best)
        assert problem.is_feasible(least)
        assert belief.value(least) <= belief.value(best)
