"""A choice moved into the limits fits, whatever it was and however many limits there are."""

import numpy as np
import pytest
from instances import random_problem, realistic_tables, wild_tables

from bitfront.search._genes import crossed
from bitfront.search._levels import Levels


def moved(problem, choice, by_loss=True):
    levels = Levels.of(problem)
    level = levels.moved(levels.of_choice(choice), np.random.default_rng(0), by_loss)
    return levels.choice(level)


@pytest.mark.parametrize("by_loss", [True, False])
def test_any_choice_is_brought_within_two_limits_and_the_leftover_is_spent(by_loss):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        one = random_problem(rng, 12, 4, fraction=0.5)
        bits = one.cost("code_bits").grouped
        least, most = bits.min(axis=1).sum(), np.where(np.isfinite(bits), bits, 0).max(axis=1).sum()
        problem = one.with_limits({**one.limits, "code_bits": float(least + 0.5 * (most - least))})
        allowed = problem.space.group_allowed
        for column in range(4):
            found = moved(problem, problem.space.uniform(column), by_loss)
            assert problem.is_feasible(found)
            used = problem.group_costs[:, np.arange(12), found].sum(axis=1)
            assert (used / problem.limit_values).max() > 0.8
            assert allowed[np.arange(12), found].all()


def test_a_choice_that_fits_and_wastes_nothing_stays():
    problem = random_problem(np.random.default_rng(0), 12, 4, realistic_tables, fraction=0.5)
    once = moved(problem, problem.space.uniform(3))
    np.testing.assert_array_equal(moved(problem, once), once)


@pytest.mark.parametrize("seed", range(10))
def test_with_wild_costs_a_choice_that_fits_still_does(seed):
    problem = random_problem(np.random.default_rng(seed), 8, 4, wild_tables)
    cheapest = Levels.of(problem)
    assert problem.is_feasible(moved(problem, cheapest.choice(cheapest.cheapest)))


def test_children_have_the_genes_of_their_parents_but_for_the_mutated():
    rng = np.random.default_rng(0)
    allowed = rng.random((1500, 5)) < 0.7
    allowed[:, 2] = True
    parents = tuple(np.where(allowed, rng.random((1500, 5)), -1).argmax(axis=1) for _ in "ab")
    child = crossed(allowed, parents, 0.0, rng)
    assert ((child == parents[0]) | (child == parents[1])).all()
    differ = parents[0] != parents[1]
    assert 0.4 < (child == parents[0])[differ].mean() < 0.6
    mutated = crossed(allowed, parents, 150.0, rng)
    assert allowed[np.arange(1500), mutated].all()
    assert 30 < ((mutated != parents[0]) & (mutated != parents[1])).sum() < 150
