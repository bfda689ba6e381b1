"""Proposals follow from the trials alone, however many are measured at once."""

import random
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitfront import Choice, Study
from bitfront.job import Job, measured
from bitfront.proposing import Proposer, baselines, missing_baselines
from bitfront.results import Results
from bitfront.run import opened
from bitfront.search import SEARCHES
from bitfront.searching import search_trials
from bitfront.trial import Trial, TrialState

FORMATS = ("int2_g32", "int3_g32", "int4_g32", "int8_g32")
SEVERAL = (Choice("trust_region"), Choice("posterior_ilp"), Choice("evolution", {"n_offspring": 4}))
N_TRIALS = 12


@pytest.fixture(scope="module")
def study(tiny_study) -> Study:
    return tiny_study(
        *(4, 2),
        formats=FORMATS,
        searches=SEVERAL,
        n_search_sequences=4,
        n_trials=N_TRIALS,
        n_parallel=3,
    )


@pytest.fixture(scope="module")
def whole(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    with opened(study, folder) as job:
        search_trials(job)
    return folder


def told(trials: list[Trial]) -> list[tuple[int, str, str, str]]:
    return [(t.number, t.allocation.digest, t.origin, t.target) for t in trials]


def stored(folder: Path) -> list[Trial]:
    return list(Results(folder).trials("calibration"))


def pooled(job: Job, order: random.Random) -> list[int]:
    """Measure proposals that end in any order; how many were in flight, at each proposal.

    A new proposer is asked as soon as all but the last `n_parallel - 1` proposals have ended.
    """
    n_unknown = job.study.n_parallel - 1
    running: dict[int, tuple[Trial, Mapping[str, float]]] = {}
    counts, is_open = [], True
    while is_open or running:
        if is_open and running.keys() <= {trial.number for trial in job.proposals[-n_unknown:]}:
            proposal = Proposer.opened(job).next()
            is_open = proposal is not None
            if proposal:
                state, target = TrialState.RUNNING, proposal.target
                words = proposal.allocation, "calibration", proposal.origin
                trial = Trial(job.next_number, *words, state, target=target)
                running[trial.number] = trial, proposal.spent
                job.stored.append(trial)
                counts.append(len(running))
        else:
            trial, spent = running.pop(order.choice(list(running)))
            words = trial.number, trial.allocation, trial.text, trial.origin, trial.target
            ended = job.measurement.trial(*words)
            ended = replace(ended, values={**ended.values, **spent})
            job.stored.remove(trial)
            job.stored.append(ended)
            job.results.append(ended)
    return counts


@pytest.mark.parametrize("seed", [0, 1])
def test_any_number_of_workers_measures_the_same_trials(
    seed: int, study: Study, whole: Path, tmp_path: Path
) -> None:
    with opened(study, tmp_path) as job:
        for allocation in missing_baselines(job):
            measured(job, allocation, "calibration", "uniform")
        counts = pooled(job, random.Random(seed))
        assert told(job.trials("calibration")) == told(stored(whole))
    assert max(counts) == 3
    assert len(counts) == N_TRIALS - len(FORMATS)
    numbers = [trial.number for trial in stored(tmp_path)]
    assert numbers != sorted(numbers)


def test_a_cut_search_with_several_in_flight_goes_on_with_the_same_proposals(
    study: Study, whole: Path, tmp_path: Path
) -> None:
    for n_trials in (6, 9, N_TRIALS):
        with opened(replace(study, n_trials=n_trials), tmp_path) as job:
            search_trials(job)
        assert told(stored(tmp_path)) == told(stored(whole))[:n_trials]


@pytest.mark.parametrize("n_parallel", [1, 3])
def test_a_search_is_asked_after_all_but_the_last_results(
    n_parallel: int, study: Study, tmp_path: Path
) -> None:
    """Each proposal is what one call with that history gives."""
    search = Choice("posterior_ilp")
    with opened(replace(study, searches=(search,), n_parallel=n_parallel), tmp_path) as job:
        search_trials(job)
        trials, n_baselines = job.trials("calibration"), len(baselines(job.problem.space))
        for place in range(n_baselines, len(trials)):
            n_known = max(n_baselines, place - (n_parallel - 1))
            unknown = [
                replace(trial, state=TrialState.RUNNING, values={})
                for trial in trials[n_known:place]
            ]
            history, rng = [*trials[:n_known], *unknown], np.random.default_rng((study.seed, place))
            asked = SEARCHES.build(search.name).ask(job.problem, history, 1, rng)
            assert asked == [trials[place].allocation]


def test_the_last_results_end_no_search(study: Study, whole: Path, tmp_path: Path) -> None:
    """Their time counts when they are known."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    with opened(replace(study, n_trials=40), tmp_path) as job:
        first, second = job.proposals[-2:]
        late = [replace(x, values={**x.values, "seconds": 1e6}) for x in (first, second)]
        job.stored[-2:] = late
        timed = replace(job, study=replace(job.study, max_minutes=60.0))
        assert Proposer.opened(timed).next()
        alone = replace(timed, study=replace(timed.study, n_parallel=1))
        assert Proposer.opened(alone).next() is None


def test_slopes_that_another_process_measured_are_looked_up(
    study: Study, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    stages: list[str] = []
    longer = replace(study, searches=SEVERAL[:1], n_trials=40)
    with opened(longer, tmp_path, lambda event: stages.append(event.stage)) as job:
        early = Proposer.opened(job)
        first = Proposer.opened(job).next()
        assert first
        assert "slopes" in stages
        stages.clear()
        second = early.next()
        assert second
        assert second.allocation == first.allocation
        assert "slopes" not in stages


def test_nothing_is_proposed_before_the_baselines(study: Study, tmp_path: Path) -> None:
    with opened(study, tmp_path) as job:
        missing = missing_baselines(job)
        assert missing == baselines(job.problem.space)
        for allocation in missing[1:]:
            measured(job, allocation, "calibration", "uniform")
        running = Trial(99, missing[0], "calibration", "uniform", TrialState.RUNNING)
        job.stored.append(running)
        assert missing_baselines(job) == missing[:1]
        with pytest.raises(AssertionError, match="baselines come first"):
            Proposer.opened(job).next()
