"""Several searches that share a history, and when a search stops."""

from dataclasses import replace
from pathlib import Path

import pytest

from bitfront import Choice, Study
from bitfront.errors import InvalidArgument
from bitfront.proposing import _volume
from bitfront.results import Results
from bitfront.run import opened
from bitfront.searching import search_trials
from bitfront.trial import Trial

FORMATS = ("int2_g32", "int3_g32", "int4_g32", "int8_g32")
SEVERAL = (Choice("posterior_ilp"), Choice("trust_region"), Choice("random"))


@pytest.fixture(scope="module")
def study(tiny_study) -> Study:
    return tiny_study(4, 2, formats=FORMATS, searches=SEVERAL, n_search_sequences=2, n_trials=11)


def searched(study: Study, folder: Path) -> list[Trial]:
    with opened(study, folder) as job:
        search_trials(job)
    return [t for t in Results(folder).trials("calibration") if t.origin != "uniform"]


@pytest.fixture(scope="module")
def whole(study: Study, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    searched(study, folder)
    return folder


def test_searches_propose_in_turn_into_one_history(whole: Path) -> None:
    trials = [t for t in Results(whole).trials("calibration") if t.origin != "uniform"]
    names = [choice.name for choice in SEVERAL]
    assert [t.origin for t in trials] == [names[i % 3] for i in range(len(trials))]
    assert len({t.allocation for t in trials}) == len(trials) == 11 - len(FORMATS)


@pytest.mark.parametrize("n_first", [5, 6, 8])
def test_a_cut_search_goes_on_with_the_same_proposals(
    n_first: int, study: Study, whole: Path, tmp_path: Path
) -> None:
    searched(replace(study, n_trials=n_first), tmp_path)
    resumed = searched(study, tmp_path)
    expected = [t for t in Results(whole).trials("calibration") if t.origin != "uniform"]
    assert [t.allocation for t in resumed] == [t.allocation for t in expected]


def test_where_one_search_has_nothing_left_the_others_go_on(study: Study, tmp_path: Path) -> None:
    short = Choice("sweep", {"spread": 0.001, "n_limits": 1, "n_refinements": 0})
    trials = searched(replace(study, searches=(short, Choice("random"))), tmp_path)
    assert len(trials) == 11 - len(FORMATS)
    assert sum(t.origin == "random" for t in trials) > sum(t.origin == "sweep" for t in trials)


def test_time_is_counted_over_all_runs_of_a_folder(study: Study, tmp_path: Path) -> None:
    tight = replace(study, max_minutes=1e-9)
    assert len(searched(tight, tmp_path)) == 1  # one proposal is always measured
    assert len(searched(tight, tmp_path)) == 1
    assert len(searched(replace(study, max_minutes=60.0), tmp_path)) == 11 - len(FORMATS)


def test_slopes_count_as_time_too(study: Study, whole: Path) -> None:
    trials = Results(whole).trials("calibration")
    spent = {t.origin: t.values["slope_seconds"] for t in trials if "slope_seconds" in t.values}
    assert list(spent) == ["trust_region"]
    assert spent["trust_region"] > 0


def test_a_faster_allocation_lets_the_front_grow(study: Study, tmp_path: Path) -> None:
    """With a cost of latency, the volume has a third objective."""
    with opened(study, tmp_path) as job:
        search_trials(replace(job, study=replace(study, n_trials=5)))
        trials = job.trials("calibration")
        timed = [replace(t, values={**t.values, "latency_ns": 100.0}) for t in trials]
        best = min(timed, key=lambda t: t.values["kl"] if t.origin != "uniform" else 9)
        faster = replace(best, values={**best.values, "latency_ns": 50.0})
        known = [*timed, faster]
        assert _volume(job.problem, known, known) > _volume(job.problem, timed, known)
        assert _volume(job.problem, [*trials, best], trials) == _volume(job.problem, trials, trials)


def test_a_front_that_grows_no_more_ends_the_search(study: Study, tmp_path: Path) -> None:
    many = replace(study, searches=(Choice("random"),), n_trials=60, patience=3)
    trials = searched(many, tmp_path)
    assert 3 < len(trials) < 60 - len(FORMATS)
    longer = searched(replace(many, patience=12), tmp_path)
    assert len(longer) > len(trials)


@pytest.mark.parametrize(
    "fields", [{"searches": ()}, {"patience": 0}, {"max_minutes": -1.0}, {"n_parallel": 0}]
)
def test_impossible_stops_are_refused(fields: dict[str, object], study: Study) -> None:
    with pytest.raises(InvalidArgument, match="give"):
        replace(study, **fields)


def test_several_choices_are_read_from_one_word() -> None:
    read = Choice.parse_list("trust_region:n_steps=2,spread=0.1, posterior_ilp,random:n_attempts=3")
    assert read == (
        Choice("trust_region", {"n_steps": 2, "spread": 0.1}),
        Choice("posterior_ilp"),
        Choice("random", {"n_attempts": 3}),
    )
    with pytest.raises(InvalidArgument, match="begin with a name"):
        Choice.parse_list("spread=0.1,random")
