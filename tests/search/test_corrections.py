"""What corrections share and what they do not."""

from dataclasses import replace

import numpy as np
import pytest
from instances import (
    interacting_study,
    random_problem,
    realistic_tables,
    run_search,
    wild_tables,
)

from bitfront import formats
from bitfront.search._corrections import BOUND, Corrections, features_of
from bitfront.search._vectors import scored
from bitfront.search.random import Random
from bitfront.search.sweep import Sweep
from bitfront.space import Layer, SearchSpace
from bitfront.trial import TrialState

MENU = tuple(map(formats.named, ("int2_g64", "int4_g64")))


def features(*layers):
    return features_of(SearchSpace(layers, MENU))


def layer(block, kind):
    name = kind if block < 0 else f"model.layers.{block}.{kind}"
    return Layer(name, (64, 64), name, block, kind)


def test_layers_outside_the_blocks_have_a_kind_but_no_depth():
    blocks = [layer(b, "fc") for b in range(4)]
    found = features(layer(-1, "model.project_in.0"), *blocks, layer(-1, "head.dense"))
    n_kinds = 3
    kind, depth = found[:, 0, :n_kinds], found[:, 0, n_kinds : n_kinds + 3]
    assert (kind.sum(axis=1) == 1).all()
    assert (kind[[0, 5]] @ kind[1:5].T == 0).all()
    assert (depth[[0, 5]] == 0).all()
    np.testing.assert_array_equal(depth[1:5], features(*blocks)[:, 0, 1:4])
    assert (depth[1:5] != 0).any(axis=1).all()


def test_layers_that_share_only_their_last_name_share_no_correction():
    parts = ("attn.c_proj", "mlp.c_proj")
    found = features(*(layer(b, part) for b in range(2) for part in parts))
    kind = found[:, 0, :2]
    np.testing.assert_array_equal(kind, [[1, 0], [0, 1]] * 2)


@pytest.mark.parametrize("n_groups", [40, 80])
def test_a_decoded_vector_comes_back_as_one_that_decodes_to_nearly_the_same(n_groups):
    """Much nearer to it than the uncorrected table is, which is its own inverse."""
    back, uncorrected = [], []
    for seed in range(4):
        problem, _ = interacting_study(seed, n_groups)
        corrections = Corrections.of(problem, 0.35, "lagrangian")
        zero = corrections.decode(np.zeros(corrections.n_features), problem)
        vector = np.random.default_rng(seed).normal(size=corrections.n_features)
        choice = corrections.decode(np.clip(vector, -BOUND, BOUND), problem)
        (found,) = corrections.encode([choice])
        back.append(np.mean(corrections.decode(found, problem) != choice))
        uncorrected.append(np.mean(zero != choice))
        assert np.abs(corrections.encode([zero])).max() < 0.5
    assert np.mean(back) < 0.6 * np.mean(uncorrected)


@pytest.mark.parametrize("tables", [realistic_tables, wild_tables])
def test_every_choice_has_a_vector_within_the_bounds(tables):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, 8, 4, tables, fraction=0.4)
        corrections = Corrections.of(problem, 0.35, "lagrangian")
        allowed = problem.space.group_allowed
        choices = [np.where(allowed, rng.random(allowed.shape), -1).argmax(axis=1) for _ in "abc"]
        choices += [problem.space.uniform(column) for column in range(4)]
        vectors = corrections.encode(choices)
        assert np.isfinite(vectors).all()
        assert np.abs(vectors).max() <= BOUND


def test_scores_compare_allocations_of_different_budgets():
    """Along the solver's front they hardly change, and random allocations score worse."""
    problem, measure = interacting_study(3, 40)
    larger = problem.with_limits({q: np.floor(1.15 * x) for q, x in problem.limits.items()})
    front = run_search(Sweep(spread=0.26), larger, measure, 20)
    both = [*front, *run_search(Random(), problem, measure, 10)[4:]]
    failed = replace(both[-1], state=TrialState.FAIL, values={})
    corrections = Corrections.of(problem, 0.35, "lagrangian")
    choices = [problem.space.encode(t.allocation).astype(np.int8) for t in (*both, failed)]
    which, scores = scored(corrections, [*both, failed], choices)
    assert which == list(range(len(both) + 1))
    logs = np.log([t.values["kl"] for t in front[4:]])
    assert np.ptp(scores[4:20]) < 0.5 * np.ptp(logs)
    assert scores[20:26].min() > scores[4:20].max()
    assert scores[-1] > scores[:-1].max()
