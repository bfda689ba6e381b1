"""What greedy, random, uniform and waterfill promise beyond the contract."""

import numpy as np
import pytest
from instances import random_problem

from bitfront import formats
from bitfront.errors import InfeasibleBudget
from bitfront.problem import Problem
from bitfront.solvers.exhaustive import Exhaustive
from bitfront.solvers.greedy import Greedy
from bitfront.solvers.random import Random
from bitfront.solvers.uniform import Uniform
from bitfront.solvers.waterfill import Waterfill
from bitfront.space import Layer, SearchSpace
from bitfront.table import LayerTable

MENU = tuple(formats.named(f"int{bits}_g64") for bits in (2, 3, 4, 5, 6, 7, 8))


def problem_of(loss, costs, limit):
    space = SearchSpace(
        tuple(Layer(f"l.{i}.x", (64, 64), str(i)) for i in range(len(loss))), MENU[: len(loss[0])]
    )
    tables = [LayerTable(space, np.array(values, float), "q") for values in (loss, costs)]
    cost = LayerTable(space, tables[1].values, "bytes")
    return Problem(tables[0], (cost,), {"bytes": float(limit)})


def test_greedy_goes_on_past_a_step_that_does_not_fit():
    # the best rate is the large step of the first group, which is too dear
    problem = problem_of([[10, 0], [1, 0.5], [1, 0.6]], [[1, 9], [1, 2], [1, 2]], 5)
    assert Greedy().solve(problem).choice.tolist() == [0, 1, 1]


def test_random_is_seeded_and_varied():
    problem = random_problem(np.random.default_rng(0), 30, 5, fraction=0.4)
    choices = [Random(seed).solve(problem).choice.tobytes() for seed in range(20)]
    assert len(set(choices)) == 20
    assert Random(3).solve(problem).choice.tobytes() == choices[3]


def test_random_uses_most_of_the_budget():
    problem = random_problem(np.random.default_rng(0), 60, 5, fraction=0.4)
    for seed in range(10):
        choice = Random(seed).solve(problem).choice
        assert problem.cost("bytes").total(choice) >= 0.97 * problem.limits["bytes"]


def test_uniform_is_the_best_single_format_within_the_limit():
    problem = problem_of([[9, 4, 1], [9, 4, 1]], [[1, 2, 3], [1, 2, 3]], 5)
    assert Uniform().solve(problem).choice.tolist() == [1, 1]


def test_uniform_without_a_format_that_fits_takes_the_smallest_of_each():
    problem = problem_of([[9, 4], [9, 4]], [[1, 3], [3, 1]], 3)
    assert Uniform().solve(problem).choice.tolist() == [0, 1]


def test_uniform_says_when_limits_cannot_be_met_together():
    problem = problem_of([[9, 4], [9, 4]], [[1, 3], [1, 3]], 2)
    space = problem.space
    bits = LayerTable(space, np.array([[3.0, 1.0], [3.0, 1.0]]), "code_bits")
    both = Problem(problem.loss, (*problem.costs, bits), {"bytes": 2.0, "code_bits": 2.0})
    with pytest.raises(InfeasibleBudget):
        Uniform().solve(both)


def test_waterfill_gives_half_a_bit_per_doubling_of_sensitivity():
    sensitivity = 4.0 ** np.array([-2, -1, 0, 1, 2])
    bits = np.array([f.num_bits for f in MENU])
    loss = sensitivity[:, None] * 4.0**-bits
    costs = np.tile(bits * 512.0, (5, 1))
    problem = problem_of(loss, costs, 5 * 5 * 512)
    assert bits[Waterfill().solve(problem).choice].tolist() == [3, 4, 5, 6, 7]


def test_waterfill_is_optimal_for_the_loss_it_assumes():
    bits = np.array([f.num_bits for f in MENU])
    for seed in range(10):
        sensitivity = np.random.default_rng(seed).lognormal(0, 1.5, (5, 1))
        problem = problem_of(sensitivity * 4.0**-bits, np.tile(bits * 512.0, (5, 1)), 25 * 512)
        assert Waterfill().solve(problem).loss == pytest.approx(Exhaustive().solve(problem).loss)


def test_waterfill_takes_rows_without_any_loss():
    problem = problem_of([[0, 0, 0], [4, 1, 0.25]], [[1, 2, 3], [1, 2, 3]], 4)
    assert Waterfill().solve(problem).choice.tolist() == [0, 2]
