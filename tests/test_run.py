"""What a whole study promises."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bitfront import Budget, Choice, Study, TextSource, run_study
from bitfront.banks import build_bank
from bitfront.errors import InfeasibleBudget, InvalidArgument, InvalidText, MismatchedArtifact
from bitfront.formats.int_grouped import IntGrouped
from bitfront.inputs import prepare
from bitfront.measurement import Measurement
from bitfront.models.patch import PatchedModel
from bitfront.models.reference import Reference
from bitfront.pareto import ParetoFront
from bitfront.progress import Event
from bitfront.results import Results
from bitfront.run import opened, prepared
from bitfront.sensitivity.fisher import Fisher
from bitfront.trial import TEXTS

FORMATS = ("int2_g32", "int3_g32", "int4_g32", "int8_g32")


@pytest.fixture(scope="module")
def study(tiny_study) -> Study:
    return tiny_study(
        *(4, 6), formats=FORMATS, estimator=Choice("fisher"), n_trials=9, n_search_sequences=3
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


@pytest.mark.parametrize("text", ["calibration", "evaluation"])
def test_a_trial_whose_line_was_removed_is_measured_again(
    study: Study, finished: Path, tmp_path: Path, text: str
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path, before = tmp_path / "trials.jsonl", Results(finished).trials()
    place = next(i for i, trial in enumerate(before) if trial.text == text)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:place] + lines[place + 1 :]))
    assert measured(run_study(study, tmp_path)) == measured(Results(finished).front())
    *kept, new = Results(tmp_path).trials()
    assert [*kept[:place], *kept[place:]] == [*before[:place], *before[place + 1 :]]
    assert (new.text, new.allocation) == (text, before[place].allocation)
    assert new.number == before[-1].number + 1


def test_measured_trials_are_read_twice_however_many_there_are(
    study: Study, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    n_before, read, reads = len(Results(tmp_path).trials()), Results.trials, []
    monkeypatch.setattr(Results, "trials", lambda *a: reads.append(a) or read(*a))
    run_study(replace(study, n_trials=study.n_trials + 3), tmp_path)
    assert len(reads) == 2  # to continue, and for the front
    trials = read(Results(tmp_path))
    assert len(trials) >= n_before + 3
    assert [t.number for t in trials] == list(range(len(trials)))


def test_the_reference_of_slopes_is_made_when_a_search_asks_for_slopes(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    plain, asking = tmp_path / "plain", tmp_path / "asking"
    run_study(replace(study, searches=(Choice("sweep"),), n_trials=len(FORMATS) + 1), plain)
    names = {path.name for path in (plain / "references").iterdir()}
    assert names == {"calibration.safetensors", "evaluation.safetensors"}
    run_study(replace(study, n_trials=len(FORMATS) + 3), asking)
    path = asking / "references" / "estimation.safetensors"
    stored, made_at = load_file(path), path.stat().st_mtime_ns
    # Asked for while the model held an allocation, it is that of the unquantized model.
    expected = Reference.of(prepare(study).model.module, stored["tokens"])
    assert all(torch.equal(tensor, getattr(expected, x)) for x, tensor in stored.items())
    run_study(replace(study, n_trials=len(FORMATS) + 8), asking)
    assert path.stat().st_mtime_ns == made_at


def test_the_reference_of_slopes_is_of_the_unquantized_model_whoever_asks(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    inputs, path = prepare(study), Results(tmp_path).reference("estimation")
    path.unlink(missing_ok=True)
    with opened(study, tmp_path) as job:
        held = job.trials("calibration")[0].allocation
        job.measurement.patched.apply(held)
        made = job.measurement.estimation
        slopes = job.measurement.slopes(held)
        assert torch.equal(made.tokens, job.tokens["estimation"])
    expected = Reference.of(inputs.model.module, made.tokens)
    stored = Reference.load(path, inputs.model_identity, made.tokens)
    for reference in (made, stored):
        assert torch.equal(reference.log_probs, expected.log_probs)
    assert abs(slopes.values).max() > 0


def test_the_tokens_of_a_job_are_those_of_its_texts(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    inputs = prepare(study)
    with opened(study, tmp_path) as job:
        assert {text: len(tokens) for text, tokens in job.tokens.items()} == {
            "estimation": 4,
            "calibration": 3,
            "evaluation": 6,
        }
        for text in TEXTS:
            assert torch.equal(job.tokens[text], job.measurement.references[text].tokens)
            assert torch.equal(job.tokens[text], inputs.tokens[text])


def test_a_measurement_without_estimation_blocks_measures_but_has_no_slopes(
    study: Study, tmp_path: Path
) -> None:
    inputs = prepare(study)
    bank = build_bank(study, inputs, tmp_path)
    references = {"calibration": Reference.of(inputs.model.module, inputs.tokens["calibration"])}
    uniform = inputs.space.decode(inputs.space.uniform(3))
    with PatchedModel(inputs.model.module, bank) as patched:
        measurement = Measurement(patched, inputs.costs, references)
        assert measurement.trial(0, uniform, "calibration", "uniform").values["kl"] > 0
        for asked in (lambda: measurement.estimation, lambda: measurement.slopes(uniform)):
            with pytest.raises(InvalidArgument, match="no estimation blocks") as refused:
                asked()
            assert "\n" not in str(refused.value)


def test_another_budget_keeps_what_was_measured(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "again"
    shutil.copytree(finished, directory)
    before = Results(directory).trials("calibration")
    other = replace(study, budget=Budget.parse("5bpw"), n_trials=len(FORMATS) + 2)
    front = run_study(other, directory)
    after = [t for t in Results(directory).trials("calibration") if t not in before]
    names = ",".join(map(str, study.searches))
    assert [t.target for t in after] == [f"5bpw {names}"] * 2
    assert front.best("kl", bits_per_weight=5).values["bits_per_weight"] <= 5


def test_until_another_budget_is_all_measured_the_folder_answers_the_last(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    other = replace(study, budget=Budget.parse("3bpw"), n_trials=len(FORMATS) + 1)
    refused_at("evaluate", other, tmp_path)
    assert Results(tmp_path).study.budget == study.budget
    run_study(other, tmp_path)
    assert Results(tmp_path).study.budget == other.budget


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


def test_a_tokenizer_of_another_model_is_refused_by_what_the_model_predicts(
    study: Study, tmp_path: Path
) -> None:
    """As many ids as the model knows, for other tokens."""
    model = Path(shutil.copytree(study.model, tmp_path / "model"))
    fields = json.loads((model / "tokenizer.json").read_text())
    tokens = list(fields["model"]["vocab"])
    fields["model"]["vocab"] = dict(zip(tokens, [0, *range(len(tokens) - 1, 0, -1)], strict=True))
    (model / "tokenizer.json").write_text(json.dumps(fields))
    with pytest.raises(InvalidText, match=r"tokenizer is of another model, or the text") as refused:
        run_study(replace(study, model=str(model)), tmp_path / "out")
    assert f"calibration text {study.calibration.source!r}" in str(refused.value)


def refused_at(stage: str, study: Study, out: Path) -> None:
    """A run that ends, unmeasured, where a stage is first reported."""

    def end(event: Event) -> None:
        if event.stage == stage:
            raise Cut

    with pytest.raises(Cut):
        run_study(study, out, end)


def test_a_text_that_is_refused_leaves_the_folder_to_the_next(
    study: Study, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise, out, made = tmp_path / "noise.txt", tmp_path / "out", Reference.of

    def unlike(model: nn.Module, tokens: torch.Tensor, *options: Any) -> Reference:
        return made(model, tokens, *options[:-1], 1.0)

    noise.write_text(Path(study.evaluation.source).read_text()[::-1])
    for text in ("calibration", "evaluation"):
        wrong = replace(study, **{text: TextSource(str(noise), 4, 64)})
        with monkeypatch.context() as patch:
            patch.setattr(Reference, "of", unlike)
            with pytest.raises(InvalidText, match="worse than guessing"):
                run_study(wrong, out)
        assert not (out / "identity.json").exists()
    assert not (out / "bank").exists()
    assert measured(run_study(study, out)) == measured(Results(finished).front())


@pytest.mark.parametrize("stage", ["reference", "quantize", "estimate", "search"])
def test_what_a_folder_without_trials_holds_of_another_study_is_not_mistaken(
    study: Study, finished: Path, tmp_path: Path, stage: str
) -> None:
    """Of another dtype above all: a reference does not say its own."""
    dtype = "bfloat16" if Results(finished).identity["dtype"] == "float32" else "float32"
    text = TextSource(study.evaluation.source, 4, 64)
    refused_at(stage, replace(study, dtype=dtype, evaluation=text), tmp_path)
    assert measured(run_study(study, tmp_path)) == measured(Results(finished).front())
    assert Results(tmp_path).identity == Results(finished).identity
    for path in (*finished.glob("references/*"), *finished.glob("tables/*")):
        assert (tmp_path / path.relative_to(finished)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("stage", "n_made"), [("quantize", 2), ("search", 3)])
def test_a_run_cut_before_its_first_trial_keeps_its_table_and_references(
    study: Study, tmp_path: Path, stage: str, n_made: int
) -> None:
    refused_at(stage, study, tmp_path)
    kept = [*tmp_path.glob("references/*"), *tmp_path.glob("tables/*")]
    before = [path.stat().st_mtime_ns for path in kept]
    assert len(kept) == n_made
    refused_at("search", study, tmp_path)
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_trials_that_nothing_identifies_are_refused(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / "identity.json").unlink()
    with pytest.raises(MismatchedArtifact, match=r"no identity\.json") as refused:
        run_study(study, tmp_path)
    assert "another folder" in str(refused.value)


def test_few_trials_still_measure_every_baseline_and_one_proposal(
    study: Study, tmp_path: Path
) -> None:
    run_study(replace(study, n_trials=1), tmp_path)
    origins = [t.origin for t in Results(tmp_path).trials("calibration")]
    assert origins == ["uniform"] * len(FORMATS) + [study.searches[0].name]


def test_a_changed_format_definition_is_refused(
    study: Study, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded = IntGrouped.rounded
    monkeypatch.setattr(IntGrouped, "rounded", lambda *a: (rounded(*a) // 2) * 2)
    with pytest.raises(MismatchedArtifact, match="formats"):
        run_study(study, finished)


def test_a_raised_estimator_version_is_refused(
    study: Study, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fisher, "version", Fisher.version + 1)
    with pytest.raises(MismatchedArtifact, match="estimator"):
        run_study(study, finished)


@pytest.mark.parametrize("budget", ["1.5bits", "1.5bpw", "0.02MB", "9KiB"])
def test_the_smallest_budget_that_an_error_names_is_reachable(
    study: Study, finished: Path, tmp_path: Path, budget: str
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    before = Results(tmp_path).study
    with pytest.raises(InfeasibleBudget, match="smallest reachable budget is") as refused:
        run_study(replace(study, budget=Budget.parse(budget)), tmp_path)
    assert Results(tmp_path).study == before
    named = re.search(r"budget is (\S+)\. ", str(refused.value))
    assert named
    smallest = Budget.parse(named.group(1))
    assert smallest.unit == Budget.parse(budget).unit
    front = run_study(replace(study, budget=smallest), tmp_path)
    front.best("kl", **smallest.bounds())


@pytest.mark.parametrize("budget", ["16bits", "17bpw", "1GB"])
def test_budget_above_bf16_is_refused(study: Study, tmp_path: Path, budget: str) -> None:
    with pytest.raises(InvalidArgument, match="not below bf16"):
        run_study(replace(study, budget=Budget.parse(budget)), tmp_path)


def test_two_runs_cannot_share_a_folder(study: Study, tmp_path: Path) -> None:
    results = Results(tmp_path)
    with results.locked(), pytest.raises(MismatchedArtifact, match="in use"):
        run_study(study, tmp_path)


def test_a_study_is_prepared_apart_from_what_comes_after(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    with prepared(study, tmp_path) as made:
        assert set(made.references) == set(TEXTS)
        assert made.results.is_of(made.inputs.identity(study))
        with pytest.raises(MismatchedArtifact, match="in use"):
            run_study(study, tmp_path)
    assert not list(tmp_path.glob("tables/*"))
    kept = [*tmp_path.glob("references/*"), *tmp_path.glob("bank/*")]
    before = [path.stat().st_mtime_ns for path in kept]
    assert measured(run_study(study, tmp_path)) == measured(Results(finished).front())
    assert [path.stat().st_mtime_ns for path in kept] == before
