"""What a whole study promises."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bitfront import Budget, Choice, Study, TextSource, run_study
from bitfront.errors import InfeasibleBudget, InvalidArgument, InvalidText, MismatchedArtifact
from bitfront.inputs import Event
from bitfront.pareto import ParetoFront
from bitfront.results import Results

FORMATS = ("int2_g32", "int3_g32", "int4_g32", "int8_g32")


@pytest.fixture(scope="module")
def study(tiny_folder: Path, calibration_file: Path, evaluation_file: Path) -> Study:
    return Study(
        model=str(tiny_folder),
        budget=Budget.parse("4.2bpw"),
        calibration=TextSource(str(calibration_file), 4, 64),
        evaluation=TextSource(str(evaluation_file), 6, 64),
        formats=FORMATS,
        estimator=Choice("fisher"),
        n_trials=9,
        n_search_sequences=3,
        pinned="int8_g32",
    )


@pytest.fixture(scope="module")
def finished(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("finished")
    run_study(study, directory)
    return directory


def measured(front: ParetoFront) -> list[tuple[str, float, float]]:
    return [(t.allocation.to_json(), t.values["kl"], t.values["bytes"]) for t in front.trials]


def test_no_point_exceeds_the_budget_it_is_chosen_for(study: Study, finished: Path) -> None:
    best = Results(finished).front().best("kl", **study.budget.bounds())
    assert best.values["bits_per_weight"] <= 4.2


def test_every_uniform_baseline_is_measured_and_never_beats_the_front(finished: Path) -> None:
    results = Results(finished)
    uniform = [t for t in results.trials("evaluation") if t.origin == "uniform"]
    first = results.space.layers[0].name
    assert {t.allocation.formats[first] for t in uniform} == set(FORMATS)
    for baseline in uniform:
        assert (
            results.front().best("kl", bytes=baseline.values["bytes"]).values["kl"]
            <= (baseline.values["kl"])
        )


def test_front_is_of_evaluation_text_only(finished: Path) -> None:
    assert {t.text for t in Results(finished).front().trials} == {"evaluation"}


def test_same_study_same_front(study: Study, finished: Path, tmp_path: Path) -> None:
    assert measured(run_study(study, tmp_path)) == measured(Results(finished).front())


class Cut(Exception):
    """Stands for a kill."""


def test_a_cut_run_continues_to_the_same_front(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    def cut(event: Event) -> None:
        if event.stage == "search" and event.done == 6:
            raise Cut

    with pytest.raises(Cut):
        run_study(study, tmp_path, cut)
    trials = tmp_path / "trials.jsonl"
    with trials.open("a") as file:
        file.write('{"number": 6, "alloc')
    assert measured(run_study(study, tmp_path)) == measured(Results(finished).front())
    numbers = [json.loads(line)["number"] for line in trials.read_text().splitlines()]
    assert numbers == list(range(len(numbers)))


def test_another_budget_keeps_what_was_measured(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "again"
    shutil.copytree(finished, directory)
    before = Results(directory).trials("calibration")
    other = replace(study, budget=Budget.parse("5bpw"), n_trials=len(before) + 1)
    front = run_study(other, directory)
    after = Results(directory).trials("calibration")
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1
    assert front.best("kl", bits_per_weight=5).values["bits_per_weight"] <= 5


def test_a_folder_of_another_study_is_refused_by_what_differs(
    study: Study, finished: Path, evaluation_file: Path, tmp_path: Path
) -> None:
    changed = {
        "formats": replace(study, formats=FORMATS[1:]),
        "quantizer": replace(study, quantizer=Choice("rtn", {"clip_steps": 0})),
        "estimator": replace(study, estimator=Choice("weight_error")),
        "seed": replace(study, seed=1),
        "evaluation tokens": replace(study, evaluation=TextSource(str(evaluation_file), 5, 64)),
    }
    copy = tmp_path / "renamed.txt"
    copy.write_text(Path(study.calibration.source).read_text() * 2)
    changed["calibration tokens"] = replace(study, calibration=TextSource(str(copy), 4, 64))
    for what, other in changed.items():
        with pytest.raises(MismatchedArtifact, match=what):
            run_study(other, finished)


def test_a_text_under_another_name_is_the_same_text(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "renamed.txt"
    shutil.copy(study.calibration.source, copy)
    renamed = replace(study, calibration=TextSource(str(copy), 4, 64))
    assert measured(run_study(renamed, finished)) == measured(Results(finished).front())


def test_calibrating_on_the_evaluation_text_is_refused(study: Study, tmp_path: Path) -> None:
    leaking = replace(study, evaluation=study.calibration)
    with pytest.raises(InvalidText, match="share a block"):
        run_study(leaking, tmp_path)


def test_budget_below_the_smallest_says_the_smallest(study: Study, tmp_path: Path) -> None:
    with pytest.raises(InfeasibleBudget, match="smallest reachable"):
        run_study(replace(study, budget=Budget.parse("1.5bpw")), tmp_path)


@pytest.mark.parametrize("budget", ["16bits", "17bpw", "1GB"])
def test_budget_above_bf16_is_refused(study: Study, tmp_path: Path, budget: str) -> None:
    with pytest.raises(InvalidArgument, match="not below bf16"):
        run_study(replace(study, budget=Budget.parse(budget)), tmp_path)


def test_two_runs_cannot_share_a_folder(study: Study, tmp_path: Path) -> None:
    results = Results(tmp_path)
    with results.locked(), pytest.raises(MismatchedArtifact, match="in use"):
        run_study(study, tmp_path)
