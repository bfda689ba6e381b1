"""Evolution keeps the budget, halves what it screens, and proposes what screened best."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from instances import interacting_study, random_problem, run_search

from bitfront.errors import InvalidArgument
from bitfront.search._levels import Levels
from bitfront.search.evolution import Evolution
from bitfront.trial import Trial

N_SEQUENCES = 16


def noisy(measure, allocation, n_sequences):
    """KL on few sequences: off by 10 % on one, by less on more."""
    rng = np.random.default_rng([int(allocation.digest[:8], 16), n_sequences])
    return measure(allocation)["kl"] * np.exp(0.1 * rng.normal() / np.sqrt(n_sequences))


def step(search, problem, measure, history, seed):
    """The screenings of one step, and the problem with their results."""
    asked, screened = [], {}
    while True:
        problem = replace(problem, screened=screened)
        wanted = search.screen(problem, history, np.random.default_rng(seed))
        if wanted is None:
            return asked, problem
        asked.append(wanted)
        for allocation in wanted.allocations:
            kl = noisy(measure, allocation, wanted.n_sequences)
            screened.setdefault(allocation, {})[wanted.n_sequences] = kl


def evolved(search, problem, measure, n_trials, seed=0):
    """The loop of a study that screens."""
    problem = replace(problem, n_sequences=N_SEQUENCES)
    trials = run_search(search, problem, measure, len(problem.space.formats))
    while len(trials) < n_trials:
        _, known = step(search, problem, measure, trials, [seed, len(trials)])
        rng = np.random.default_rng([seed, len(trials)])
        for allocation in search.ask(known, trials, 1, rng):
            values = measure(allocation)
            trials.append(Trial(len(trials), allocation, "calibration", "search", values=values))
    return trials


@pytest.fixture
def study():
    """A problem of 30 groups measured on 16 sequences, and its first five trials."""
    problem, measure = interacting_study(0, n_groups=30)
    problem = replace(problem, n_sequences=N_SEQUENCES)
    return problem, measure, run_search(Evolution(), problem, measure, 5)


def test_switches_keep_the_limit_and_use_it():
    rng, n_changed = np.random.default_rng(0), []
    for seed in range(30):
        problem = random_problem(np.random.default_rng(seed), 12, 4, fraction=0.5)
        levels = Levels.of(problem)
        held = levels.moved(levels.cheapest, rng, by_loss=False)
        assert problem.is_feasible(levels.choice(held))
        for n_switches in (1, 2, 3):
            level = levels.switched(held, n_switches, rng)
            assert problem.is_feasible(levels.choice(level))
            n_changed.append([(level > held).sum(), (level < held).sum()])
            # Of the groups that were left alone none can rise any more.
            full = levels.moved(level, rng, by_loss=False)
            assert (level[full > level] != held[full > level]).all()
    assert np.mean(np.array(n_changed) > 0) > 0.9
    assert np.mean(n_changed) < 4


@pytest.mark.parametrize("by_loss", [False, True])
def test_a_move_to_a_smaller_limit_meets_it(by_loss):
    for seed in range(30):
        problem = random_problem(np.random.default_rng(seed), 12, 4, fraction=0.4)
        levels = Levels.of(problem)
        moved = levels.moved(levels.top, np.random.default_rng(0), by_loss)
        assert problem.is_feasible(levels.choice(moved))


def test_few_of_the_offspring_are_screened_on_more_sequences(study):
    problem, measure, trials = study
    asked, known = step(Evolution(spread=0), problem, measure, trials, 1)
    assert [(len(x.allocations), x.n_sequences) for x in asked] == [(16, 1), (4, 4)]
    first, second = asked
    best = sorted(first.allocations, key=lambda a: known.screened[a][1])[:4]
    assert list(second.allocations) == best
    for allocation in first.allocations:
        assert problem.is_feasible(problem.space.encode(allocation))
        assert allocation not in {t.allocation for t in trials}


def test_what_screened_best_is_proposed(study):
    problem, measure, trials = study
    for seed in range(10):
        asked, known = step(Evolution(), problem, measure, trials, seed)
        (chosen,) = Evolution().ask(known, trials, 1, np.random.default_rng(seed))
        assert chosen == min(asked[-1].allocations, key=lambda a: known.screened[a][4])


def test_an_offspring_that_overflows_is_not_chosen(study):
    problem, _, trials = study
    wanted = Evolution().screen(problem, trials, np.random.default_rng(0))
    good = wanted.allocations[11]
    screened = {a: {1: 0.5 if a == good else np.inf} for a in wanted.allocations}
    problem = replace(problem, screened=screened)
    assert Evolution().ask(problem, trials, 1, np.random.default_rng(0)) == [good]


@pytest.mark.parametrize(
    ("search", "n_sequences", "n_trials"),
    [(Evolution(n_offspring=1), 16, 5), (Evolution(), 1, 5), (Evolution(), 16, 4)],
    ids=["one offspring", "one sequence", "start"],
)
def test_nothing_is_screened_without_a_choice(search, n_sequences, n_trials):
    problem, measure = interacting_study(0)
    problem = replace(problem, n_sequences=n_sequences)
    trials = run_search(search, problem, measure, n_trials)
    assert search.screen(problem, trials, np.random.default_rng(0)) is None
    assert len(search.ask(problem, trials, 1, np.random.default_rng(0))) == 1


def test_the_best_within_the_budget_never_gets_worse_and_screening_finds_better():
    """Where a trial costs the same, by half at least of what one blind offspring gains."""
    gains = {n: [] for n in (1, 16)}
    for seed in range(5):
        problem, measure = interacting_study(seed, n_groups=30)
        for n_offspring, gained in gains.items():
            trials = evolved(Evolution(n_offspring=n_offspring, spread=0), problem, measure, 24)
            within = [t for t in trials if problem.is_feasible(problem.space.encode(t.allocation))]
            start = next(t for t in within if t.origin != "uniform").values["kl"]
            gained.append(1 - min(t.values["kl"] for t in within) / start)
    assert min(gains[1]) >= 0
    assert np.mean(gains[16]) > 1.5 * np.mean(gains[1]), gains


def test_a_start_without_the_table_ignores_it(study):
    problem, measure, _ = study
    shuffled = problem.loss.values[np.random.default_rng(0).permutation(30)]
    other = problem.with_loss(replace(problem.loss, values=shuffled))
    trials = run_search(Evolution(), problem, measure, 4)
    search = Evolution(n_warm_start=0)
    asked = [search.ask(p, trials, 3, np.random.default_rng(0)) for p in (problem, other)]
    assert asked[0] == asked[1]


@pytest.mark.parametrize("n_warm_start", [0, 1])
def test_a_small_space_is_proposed_to_its_end(n_warm_start):
    problem, measure = interacting_study(1, n_groups=3)
    trials = run_search(Evolution(n_warm_start=n_warm_start), problem, measure, 70, batch=4)
    formats = range(len(problem.space.formats))
    left = filter(problem.is_feasible, map(np.array, product(formats, repeat=3)))
    assert {problem.space.decode(choice) for choice in left} <= {t.allocation for t in trials}


@pytest.mark.parametrize(
    "wrong", [{"n_offspring": 0}, {"max_switches": 0}, {"n_warm_start": -1}, {"spread": 1.0}]
)
def test_fields_out_of_range_are_refused(wrong):
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        Evolution(**wrong)
