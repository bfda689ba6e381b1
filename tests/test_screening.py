"""What a study whose search screens allocations promises."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bitfront import Choice, Study, run_study
from bitfront.errors import MismatchedArtifact
from bitfront.progress import Event
from bitfront.results import Results
from bitfront.run import opened
from bitfront.screening import Screener
from bitfront.trial import Screened

FORMATS = ("int2_g32", "int3_g32", "int4_g32", "int8_g32")
N_SEQUENCES = 8


@pytest.fixture(scope="module")
def study(tiny_study) -> Study:
    search = Choice("evolution", {"n_offspring": 8})
    return tiny_study(
        *(8, 2), formats=FORMATS, searches=(search,), n_trials=8, n_search_sequences=N_SEQUENCES
    )


@pytest.fixture(scope="module")
def finished(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("finished")
    run_study(study, directory)
    return directory


def measured(directory: Path) -> list[tuple[str, float]]:
    trials = Results(directory).trials("calibration")
    return [(t.allocation.digest, t.values["kl"]) for t in trials]


def screened(directory: Path) -> list[tuple[str, int, float | None, int]]:
    made = Results(directory).screened()
    return [(s.digest, s.n_sequences, s.kl, s.number) for s in made]


class Cut(Exception):
    """Stands for a kill."""


def test_few_offspring_go_on_and_the_best_is_measured_whole(finished: Path) -> None:
    trials = {t.number: t for t in Results(finished).trials("calibration")}
    numbers = range(len(FORMATS) + 1, len(trials))  # the first proposal is the solver's
    for number in numbers:
        rows = [s for s in Results(finished).screened() if s.number == number]
        assert [s.n_sequences for s in rows] == [1] * 8 + [4] * 2
        best = min(rows[8:], key=lambda s: s.kl)
        assert trials[number].allocation.digest == best.digest
    assert {s.number for s in Results(finished).screened()} == set(numbers)


def test_a_benchmark_can_charge_what_was_screened(finished: Path) -> None:
    made = Results(finished).screened()
    assert sum(s.share for s in made) == pytest.approx(len(made) / 10 * (8 * 1 + 2 * 4) / 8)
    assert all(s.seconds > 0 for s in made)


def test_screenings_count_as_time_of_the_trial_that_they_led_to(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    trials, made = Results(finished).trials("calibration"), Results(finished).screened()
    proposals = [t for t in trials if t.target]
    assert "screen_seconds" not in proposals[0].values
    for trial in proposals[1:]:
        seconds = sum(s.seconds for s in made if s.number == trial.number)
        assert seconds > 0
        assert trial.values["screen_seconds"] == pytest.approx(seconds)
    spent = [sum(t.values.get(x, 0.0) for t in proposals) for x in ("seconds", "screen_seconds")]
    minutes = (spent[0] + spent[1] / 2) / 60  # more than the measurements alone
    run_study(replace(study, n_trials=10, max_minutes=minutes), tmp_path)
    assert len(Results(tmp_path).trials("calibration")) == 8


def test_what_is_screened_is_no_trial(finished: Path) -> None:
    assert len(Results(finished).trials("calibration")) == 8


@pytest.mark.parametrize("n_before", [3, 9, 12])
def test_a_cut_run_continues_to_the_same_trials_and_screens_nothing_twice(
    study: Study, finished: Path, tmp_path: Path, n_before: int
) -> None:
    n_seen = 0

    def cut(event: Event) -> None:
        nonlocal n_seen
        n_seen += event.stage == "screen"
        if n_seen == n_before:
            raise Cut

    with pytest.raises(Cut):
        run_study(study, tmp_path, cut)
    assert len(Results(tmp_path).screened()) == n_before
    with (tmp_path / "screened.jsonl").open("a") as file:
        file.write('{"digest": "cut sh')
    run_study(study, tmp_path)
    assert measured(tmp_path) == measured(finished)
    assert screened(tmp_path) == screened(finished)


def test_a_longer_run_goes_on_and_screens_nothing_twice(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    run_study(replace(study, n_trials=10), tmp_path)
    assert measured(tmp_path)[:8] == measured(finished)
    rows = screened(tmp_path)
    assert rows[: len(screened(finished))] == screened(finished)
    keys = [row[:2] for row in rows]
    assert len(set(keys)) == len(keys)


def test_a_part_is_the_mean_over_the_first_sequences(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    with opened(study, tmp_path) as job:
        trial = job.trials("calibration")[0]
        whole = job.measurement.screened(trial.allocation, N_SEQUENCES)
        assert whole == pytest.approx(trial.values["kl"], rel=1e-9)
        part = job.measurement.screened(trial.allocation, 2)
        assert part != whole
        job.measurement.references["calibration"].tokens[2:] = 0  # what comes later is not read
        assert job.measurement.screened(trial.allocation, 2) == part


def test_outputs_that_overflow_are_infinite_now_and_later(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    with opened(study, tmp_path) as job:
        allocation = job.trials("calibration")[0].allocation
        job.measurement.patched.model.model.norm.weight.data.fill_(math.inf)
        assert job.measurement.screened(allocation, 1) == math.inf
        job.results.append(Screened(allocation.digest, 3, N_SEQUENCES, None, 0))
        screener = Screener.opened(job.measurement, job.results, job.progress)
        assert screener.known[allocation.digest, 3].kl is None


def test_damaged_lines_are_named(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "screened.jsonl"
    fields = json.loads(path.read_text().splitlines()[0])
    for wrong in (
        "not json",
        "[1]",
        json.dumps(fields | {"kl": "x"}),
        json.dumps(fields | {"n_sequences": -1}),
        json.dumps(fields | {"n_all": 0}),
        json.dumps(fields | {"digest": 3}),
        json.dumps(fields | {"kl": math.nan}),
    ):
        path.write_text(wrong + "\n")
        with pytest.raises(MismatchedArtifact, match="line 1") as refused:
            Results(tmp_path).screened()
        assert str(refused.value).startswith(f"{path} is damaged")


def test_what_another_study_screened_is_not_mistaken(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    """A folder whose trials were removed may become that of another seed."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / "trials.jsonl").unlink()
    n_screened = []

    def stop(event: Event) -> None:
        if event.stage == "search":
            n_screened.append(len(Results(tmp_path).screened()))
            raise Cut

    with pytest.raises(Cut):
        run_study(replace(study, seed=1), tmp_path, stop)
    assert n_screened == [0]
