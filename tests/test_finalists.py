"""Which points of the calibration front are measured on the evaluation text."""

from dataclasses import replace

from instances import interacting_study, run_search

from bitfront.run import finalists
from bitfront.search import SEARCHES
from bitfront.trial import TrialState


def test_finalists_follow_from_the_trials_that_ended() -> None:
    """Arrays and records are enough: no model, no folder."""
    problem, measure = interacting_study()
    *ended, last = run_search(SEARCHES.build("random"), problem, measure, 12)
    running = replace(last, state=TrialState.RUNNING, values={})
    chosen = finalists([*ended, running], problem, 3)
    assert chosen == finalists(ended, problem, 3)
    searched = [t for t in ended if t.origin != "uniform"]
    best = sorted(searched, key=lambda t: t.values["kl"])[:2]
    assert chosen[: len(ended) - len(searched) + 2] == [*ended[: -len(searched)], *best]
    assert len([t for t in chosen if t.origin != "uniform"]) <= 3
