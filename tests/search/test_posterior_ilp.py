"""What posterior_ilp learns from, in a folder that knows more than it can read."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from instances import interacting_study, run_search

from bitfront.search import SEARCHES

SEARCH = SEARCHES.build("posterior_ilp", {"max_history": 32})


def at(problem, share):
    """The problem at a share of the way from the smallest cost to the largest."""
    cost = problem.cost("bytes").grouped
    low, high = cost.min(axis=1).sum(), cost.max(axis=1).sum()
    return problem.with_limits({"bytes": float(np.floor(low + share * (high - low)))})


def test_measurements_of_a_larger_budget_leave_room_for_those_of_this_one():
    """They have the smaller loss, and are as many as are read."""
    problem, measure = interacting_study(0, n_groups=12)
    old = run_search(SEARCHES.build("random"), at(problem, 0.85), measure, 44)
    trials = run_search(SEARCH, at(problem, 0.3), measure, len(old) + 6, history=old)
    other = [
        replace(t, values={**t.values, "kl": t.loss * (3 if t.number % 2 else 1)})
        if t.number >= len(old)
        else t
        for t in trials
    ]
    first, second = (
        SEARCH.ask(at(problem, 0.3), tuple(known), 3, np.random.default_rng(5))
        for known in (trials, other)
    )
    assert first != second


def test_of_those_near_the_budget_the_best_are_read():
    """What is worse than as many as are read changes nothing, unless it is all there is."""
    problem, measure = interacting_study(0, n_groups=12)
    trials = run_search(SEARCHES.build("random"), problem, measure, 44)
    worst = sorted(trials, key=lambda trial: trial.loss)[-5:]
    other = [replace(t, values={**t.values, "kl": 2 * t.loss}) if t in worst else t for t in trials]
    first, second = (
        SEARCH.ask(problem, tuple(known), 3, np.random.default_rng(5)) for known in (trials, other)
    )
    assert first == second


def test_it_goes_on_when_every_draw_was_measured():
    """And stays near the best: what it then proposes beats uniform 3 bits."""
    problem, measure = interacting_study(0, n_groups=8)
    trials = run_search(SEARCHES.build("posterior_ilp"), problem, measure, 60)
    assert len(trials) == 60
    late = trials[44:]
    coarse = next(t.loss for t in trials if t.origin == "uniform" and t.values["bits"] == 3)
    assert max(t.loss for t in late) < coarse


def test_a_small_space_is_measured_whole():
    """All of it that meets the budget."""
    problem, measure = interacting_study(0, n_groups=3)
    trials = run_search(SEARCHES.build("posterior_ilp"), problem, measure, 100)
    choices = [np.array(c) for c in product(range(len(problem.space.formats)), repeat=3)]
    within = {problem.space.decode(c) for c in choices if problem.is_feasible(c)}
    assert within <= {t.allocation for t in trials}


def test_designs_switch_the_best_allocation_within_the_budget():
    """Every fourth proposal: as many groups up as were asked for, others down, no draw."""
    problem, measure = interacting_study(0, n_groups=30)
    search = SEARCHES.build("posterior_ilp", {"switch_every": 4, "n_switches": 5})
    trials = run_search(search, problem, measure, 24)
    proposed = [t for t in trials if t.origin == "search"]
    for index in range(5, len(proposed), 4):
        known = [*trials[: proposed[index].number]]
        encoded = [problem.space.encode(t.allocation) for t in known]
        best = min(
            (t.loss, c.tolist())
            for t, c in zip(known, encoded, strict=True)
            if problem.is_feasible(c)
        )[1]
        choice = problem.space.encode(proposed[index].allocation)
        assert 5 <= (choice > best).sum() <= 12
        assert (choice < best).any()
        assert problem.is_feasible(choice)


@pytest.mark.parametrize("place", range(4, 68, 7))
def test_designs_start_from_the_best_whatever_teaches_nothing(place):
    """A trial that lost nothing, as a column of bf16 does, ranks nowhere."""
    problem, measure = interacting_study(0, n_groups=30)
    trials = run_search(SEARCHES.build("random"), problem, measure, 69)
    trials[place] = replace(trials[place], values={**trials[place].values, "kl": 0.0})
    search = SEARCHES.build("posterior_ilp", {"switch_every": 4, "n_switches": 2})
    (asked,) = search.ask(problem, tuple(trials), 1, np.random.default_rng(0))
    encoded = [(t.loss, problem.space.encode(t.allocation)) for t in trials if t.loss > 0]
    best = min((x for x in encoded if problem.is_feasible(x[1])), key=lambda x: x[0])[1]
    assert 2 <= (problem.space.encode(asked) > best).sum() <= 6
