"""A study of two texts and of items: what is measured, stored, refused, and what stays the same."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bitfront.errors import InvalidArgument, InvalidText, MismatchedArtifact
from bitfront.inputs import check_names
from bitfront.items import digest, read_items
from bitfront.plugins import Choice
from bitfront.results import Results
from bitfront.run import run_study
from bitfront.study import SecondText, Study, TextSource
from bitfront.trial import TrialState


@pytest.fixture(scope="module")
def asked(tiny_study, calibration_file, evaluation_file, tiny_items, tmp_path_factory):
    """A study whose second text is the other end of each book, decoupled."""
    folder = tmp_path_factory.mktemp("texts")
    halves = {}
    for name, path in (("calibration", calibration_file), ("evaluation", evaluation_file)):
        text = path.read_text()
        for part, piece in enumerate((text[: len(text) // 2], text[len(text) // 2 :])):
            halves[name, part] = folder / f"{name}{part}.txt"
            halves[name, part].write_text(piece)
    made = tiny_study(
        2, 2,
        formats=("int2_g32", "int4_g32", "int8_g32"),
        estimator=Choice("weight_error"),
        searches=(Choice("decoupled"),),
        n_trials=7,
        n_search_sequences=1,
        n_finalists=3,
        second=SecondText(
            TextSource(str(halves["calibration", 1]), 2, 64),
            TextSource(str(halves["evaluation", 1]), 2, 64),
            "*.mlp.*",
        ),
        items=str(tiny_items),
    )  # fmt: skip
    return replace_sources(made, halves)


def replace_sources(study, halves):
    return replace(
        study,
        calibration=replace(study.calibration, source=str(halves["calibration", 0])),
        evaluation=replace(study.evaluation, source=str(halves["evaluation", 0])),
    )


@pytest.fixture(scope="module")
def finished(asked, tmp_path_factory):
    out = tmp_path_factory.mktemp("second")
    run_study(asked, out)
    return Results(out)


def test_every_trial_states_both_texts_and_finalists_their_answers(finished):
    complete = [t for t in finished.trials() if t.state is TrialState.COMPLETE]
    for trial in complete:
        values = trial.values
        assert values["both_kl"] == pytest.approx((values["kl"] * values["second_kl"]) ** 0.5)
        assert values["second_kl"] != values["kl"]
        assert ("answer_error" in values) == (trial.text == "evaluation")
    reported = finished.trials("evaluation")
    assert all(0 <= t.values["answer_error"] <= 1 < t.values["answer_loss"] + 1 for t in reported)


def test_the_front_is_over_both_texts(finished):
    front = finished.front()
    assert front.objectives[:2] == ("kl", "second_kl")
    study = finished.study
    assert front.goal == "both_kl"
    best = front.best(front.goal, **study.budget.bounds())
    within = [
        t for t in finished.trials("evaluation")
        if t.values["bits_per_weight"] <= 4.2 and t.state is TrialState.COMPLETE
    ]  # fmt: skip
    assert best.loss == min(t.loss for t in within)


def test_proposals_are_those_of_the_decoupled_search(finished):
    proposed = [t for t in finished.trials("calibration") if t.origin == "decoupled"]
    assert len(proposed) >= 2
    assert (finished.directory / "tables" / "weight_error-second.npz").exists()


def test_the_identity_has_the_texts_and_the_items(finished, tiny_items):
    identity = finished.identity
    assert identity["items"] == digest(read_items(tiny_items))
    assert "second_evaluation tokens" in identity


def test_other_items_are_another_study(finished, asked, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"question": "Who?", "choices": ["I", "you"], "answer": 1}\n')
    with pytest.raises(MismatchedArtifact, match="items was"):
        run_study(replace(asked, items=str(other)), finished.directory)


def test_a_study_reads_back_and_old_ones_keep_their_digest(asked):
    assert Study.from_json(asked.to_json()) == asked
    plain = json.loads(replace(asked, second=None, items=None).to_json())
    assert not {"second", "items", "kv_cache"} & plain.keys()


def test_a_second_evaluation_text_that_the_search_sees_is_refused(asked, tmp_path):
    seen = asked.second.calibration
    copied = tmp_path / "copied.txt"
    copied.write_text(Path(seen.source).read_text())
    same = replace(asked.second, evaluation=replace(seen, source=str(copied)))
    with pytest.raises(InvalidText, match="share 32 tokens"):
        run_study(replace(asked, second=same), tmp_path / "out")


@pytest.mark.parametrize("seen", ["calibration", "second"])
def test_one_file_for_what_is_seen_and_reported_is_refused_before_anything_is_read(asked, seen):
    text = asked.calibration if seen == "calibration" else asked.second.calibration
    for study in (
        replace(asked, model="nowhere", evaluation=text),
        replace(asked, model="nowhere", second=replace(asked.second, evaluation=text)),
    ):
        with pytest.raises(InvalidArgument, match="is given for calibration and for evaluation"):
            check_names(study)
    longer = replace(text, sequence_length=2 * text.sequence_length)  # other blocks: to be seen
    replace(asked, evaluation=longer).check_texts()


def test_a_pattern_that_takes_no_layer_is_one_error(asked, tmp_path):
    with pytest.raises(InvalidArgument, match="takes 0 of"):
        run_study(replace(asked, second=replace(asked.second, layers="x")), tmp_path / "out")
