"""What every search promises, over all searches there are."""

import pickle
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from cases import SEARCHES as CLAIMS
from instances import interacting_study, random_problem, run_search, with_time

from bitfront.costs import COSTS
from bitfront.pareto import hypervolume, non_dominated
from bitfront.problem import Problem
from bitfront.search import SEARCHES
from bitfront.solvers import SOLVERS
from bitfront.table import LayerTable
from bitfront.trial import Trial, TrialState

NAMES = SEARCHES.names()
NEAR = 0.15  # share of the budget below it that counts as near


@pytest.fixture(params=NAMES)
def search(request):
    return SEARCHES.build(request.param)


@pytest.fixture(scope="module")
def small():
    return interacting_study(0)


@pytest.fixture(scope="module")
def study():
    return interacting_study(0, n_groups=12)


def points(problem, rows):
    """`(kl, bytes)` rows within the budget and near it."""
    rows = np.array([[values["kl"], values["bytes"]] for values in rows])
    share = rows[:, 1] / problem.limits["bytes"]
    return rows[(share <= 1) & (share >= 1 - NEAR)]


@cache
def whole_front(seed):
    """Study `seed` with its true front near the budget and the point that bounds the volume."""
    problem, measure = interacting_study(seed)
    n_formats, n_groups = len(problem.space.formats), len(problem.space.groups)
    choices = product(range(n_formats), repeat=n_groups)
    everything = points(problem, [measure(problem.space.decode(c)) for c in choices])
    front = everything[non_dominated(everything)]
    reference = np.array([front[:, 0].max(), (1 + NEAR) * problem.limits["bytes"]]) * 1.0001
    return problem, measure, front, reference


@pytest.mark.parametrize("name", NAMES)
def test_claimed_share_of_the_front_is_found(name):
    share, n_trials = CLAIMS[name]
    found = []
    for seed in range(5):
        problem, measure, front, reference = whole_front(seed)
        trials = run_search(SEARCHES.build(name), problem, measure, n_trials)
        volume = hypervolume(points(problem, [t.values for t in trials]), reference)
        found.append(volume / hypervolume(front, reference))
    assert np.mean(found) >= share


def test_every_search_has_a_claim():
    assert set(CLAIMS) == set(NAMES)


@pytest.mark.parametrize("batch", [1, 3])
def test_nothing_is_proposed_twice_and_all_is_within_the_budget(search, small, batch):
    """Of the solver's front alone, which `sweep` measures, seven points lie near the budget."""
    problem, measure = small
    trials = run_search(search, problem, measure, 24, batch)
    allocations = [t.allocation for t in trials]
    assert len(set(allocations)) == len(allocations)
    proposed = [t for t in trials if t.origin != "uniform"]
    assert len(proposed) >= 7
    assert all(problem.is_feasible(problem.space.encode(t.allocation)) for t in proposed)


def test_several_limits_hold_together(search):
    """Bits, bytes and a time by which a smaller format may be the slower one."""
    problem, measure = interacting_study(0, n_groups=12)
    problem = with_time(problem)
    trials = run_search(search, problem, measure, 12, batch=4)
    proposed = [t.allocation for t in trials if t.origin != "uniform"]
    assert len(proposed) == len(set(proposed)) == 8
    assert all(problem.is_feasible(problem.space.encode(allocation)) for allocation in proposed)


def test_a_history_above_the_budget_leads_to_nothing_above_it(search, study):
    """Of a larger budget in the same folder, or from before proposals kept to theirs."""
    problem, measure = study
    larger = problem.with_limits({q: np.floor(1.15 * x) for q, x in problem.limits.items()})
    history = run_search(SEARCHES.build("random"), larger, measure, 16)
    assert not all(problem.is_feasible(problem.space.encode(t.allocation)) for t in history[4:])
    asked = search.ask(problem, tuple(history), 6, np.random.default_rng(0))
    assert len(asked) == 6
    assert all(problem.is_feasible(problem.space.encode(allocation)) for allocation in asked)


@pytest.mark.parametrize("share", [0.99, 1.3])
def test_a_budget_that_all_formats_meet_or_none_fills_is_searched(search, small, share):
    """1.3 times what the largest allocation takes, and a hundredth less than that takes."""
    problem, measure = small
    largest = problem.space.uniform(len(problem.space.formats) - 1)
    limit = np.floor(share * problem.cost("bytes").total(largest))
    roomy = problem.with_limits({"bytes": float(limit)})
    trials = run_search(search, roomy, measure, 24)
    proposed = [t for t in trials if t.origin != "uniform"]
    assert proposed or share > 1
    assert all(roomy.is_feasible(roomy.space.encode(t.allocation)) for t in proposed)


GUIDED = [name for name in NAMES if name not in {"decoupled", "random", "sweep", "trust_region"}]


@pytest.mark.parametrize("name", GUIDED)
def test_without_a_spread_a_search_goes_on_at_the_budget(name, study):
    """One that no allocation takes to the byte."""
    problem, measure = study
    problem = problem.with_limits({"bytes": problem.limits["bytes"] - 5})
    trials = run_search(SEARCHES.build(name, {"spread": 0.0}), problem, measure, 20)
    sizes = [t.values["bytes"] for t in trials if t.origin != "uniform"]
    assert len(sizes) == 16
    assert max(sizes) <= problem.limits["bytes"]


def test_at_most_n_are_proposed(search, study):
    problem, _ = study
    for n in (0, 1, 5):
        assert len(search.ask(problem, (), n, np.random.default_rng(0))) <= n
    assert len(search.ask(problem, (), 1, np.random.default_rng(0))) == 1


def test_groups_and_fits_are_respected(search):
    problem = random_problem(np.random.default_rng(2), 8, 4, fraction=0.4)
    asked = search.ask(problem, (), 6, np.random.default_rng(0))
    assert asked
    for allocation in asked:
        choice = problem.space.encode(allocation)  # raises where a group is split or misfits
        assert problem.space.group_allowed[np.arange(8), choice].all()


def test_same_inputs_same_proposals(search, study):
    problem, measure = study
    history = tuple(run_search(search, problem, measure, 8))
    first, second = (search.ask(problem, history, 4, np.random.default_rng(9)) for _ in range(2))
    assert first == second


def test_a_resumed_search_goes_on_as_if_never_stopped(search, study):
    problem, measure = study
    whole = run_search(search, problem, measure, 16)
    half = run_search(search, problem, measure, 9)
    resumed = run_search(pickle.loads(pickle.dumps(search)), problem, measure, 16, history=half)
    assert [t.allocation for t in resumed] == [t.allocation for t in whole]


def test_without_a_limit_nothing_is_proposed_twice(search, study):
    """The best of all is then a uniform baseline: some searches have nothing left to propose."""
    problem, measure = study
    trials = run_search(search, problem.with_limits({}), measure, 7)
    assert len({t.allocation for t in trials}) == len(trials)


def test_a_menu_of_one_format_leaves_nothing_to_propose(search, study):
    problem, _ = study
    space = replace(problem.space, formats=problem.space.formats[1:2])
    loss = LayerTable(space, problem.loss.values[:, 1:2].copy(), "kl")
    costs = COSTS.build("memory").cost(space)
    one = Problem(loss, costs, {"bytes": 2 * costs[0].values.sum()})
    values = {"kl": 0.5, "kl_stderr": 0.1, "bytes": 1.0, "bits": 3.0, "bits_per_weight": 3.5}
    assert len(run_search(search, one, lambda _: values, 6)) == 1


def test_input_is_untouched(search, study):
    problem, measure = study
    history = run_search(search, problem, measure, 8)
    before = list(history), problem.loss.values.copy(), dict(problem.limits)
    search.ask(problem, history, 3, np.random.default_rng(0))
    assert history == before[0]
    np.testing.assert_array_equal(problem.loss.values, before[1])
    assert problem.limits == before[2]


def test_failed_trials_are_not_proposed_again(search, study):
    problem, measure = study
    history = run_search(search, problem, measure, 7)
    for allocation in search.ask(problem, history, 4, np.random.default_rng(0)):
        sizes = {k: v for k, v in measure(allocation).items() if not k.startswith("kl")}
        history.append(
            Trial(len(history), allocation, "calibration", "search", TrialState.FAIL, sizes, "NaN")
        )
    failed = {t.allocation for t in history if t.state is TrialState.FAIL}
    asked = search.ask(problem, history, 4, np.random.default_rng(1))
    assert asked
    assert not failed & set(asked)


def with_last_running(trials, n=3):
    """The same history before its last trials were measured."""
    done, running = trials[:-n], trials[-n:]
    return (*done, *(replace(t, state=TrialState.RUNNING, values={}) for t in running))


@pytest.mark.parametrize("n_before", [7, 12])
def test_running_trials_teach_nothing_and_are_not_proposed_again(search, study, n_before):
    """Of 7 trials all that was proposed is running: only uniform baselines are known."""
    problem, measure = study
    trials = run_search(search, problem, measure, n_before)
    history = with_last_running(trials)
    asked = search.ask(problem, history, 4, np.random.default_rng(3))
    assert asked
    assert not {t.allocation for t in trials} & set(asked)
    assert search.ask(problem, history, 4, np.random.default_rng(3)) == asked


def test_slopes_and_screenings_can_be_asked_for_beside_running_trials(search, study):
    problem, measure = study
    history = with_last_running(run_search(search, problem, measure, 12))
    running = {t.allocation for t in history[-3:]}
    assert search.slope_at(problem, history) not in running
    many = replace(problem, n_sequences=16)
    wanted = search.screen(many, history, np.random.default_rng(3))
    assert wanted is None or not running & set(wanted.allocations)


def test_an_exhausted_space_gives_fewer_then_none(search):
    problem, measure = interacting_study(1, n_groups=2)
    trials = run_search(search, problem, measure, 40, batch=4)
    assert len(trials) <= 16
    assert search.ask(problem, tuple(trials), 4, np.random.default_rng(0)) == []
    many = replace(problem, n_sequences=16)
    assert search.screen(many, tuple(trials), np.random.default_rng(0)) is None


WARM = [name for name in NAMES if name != "random"]


@pytest.mark.parametrize("name", WARM)
def test_a_new_budget_begins_with_the_solver_again(name):
    """What was proposed for a budget farther away does not stand for a warm start at this one."""
    problem, measure = interacting_study(0)
    smaller = {q: float(np.floor(0.75 * limit)) for q, limit in problem.limits.items()}
    other = run_search(SEARCHES.build("random"), problem.with_limits(smaller), measure, 16)
    search = SEARCHES.build(name)
    asked = search.ask(problem, tuple(other), 1, np.random.default_rng(0))
    solved = SOLVERS.build("lagrangian").solve(problem).choice
    assert asked == [problem.space.decode(solved)]
    many = replace(problem, n_sequences=16)
    assert search.screen(many, tuple(other), np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    "name",
    ["amq", "cmaes", "evolution", "gp", "nsga2", "nsga3", "qmc", "tpe"],
)
def test_a_warm_start_can_be_told_off(name):
    problem, measure = interacting_study(0, n_groups=30)
    solved = problem.space.decode(SOLVERS.build("lagrangian").solve(problem).choice)
    search = SEARCHES.build(name, {"n_warm_start": 0})
    trials = run_search(search, problem, measure, 6)
    assert solved not in [trial.allocation for trial in trials if trial.origin == "search"]
