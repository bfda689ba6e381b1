"""Whole studies of models that are no language models: searched, resumed, exported, verified."""

import json
import shutil
from dataclasses import replace

import pytest

from bitfront import Budget, Choice, Study, TextSource, export_checkpoint, run_study
from bitfront.banks import build_bank
from bitfront.errors import InvalidArgument, InvalidText, MismatchedArtifact
from bitfront.exam import examined, of_files, points
from bitfront.inputs import prepare
from bitfront.models.exported import load_exported
from bitfront.models.layers import get_weight
from bitfront.models.statistics import input_grams
from bitfront.models.tasks import SentenceEmbedding, task_of
from bitfront.proof.check import check
from bitfront.proof.verify import verify
from bitfront.report import page
from bitfront.report.agreement import main_format
from bitfront.report.study import report_data
from bitfront.results import Results

CHOICES = {
    "budget": Budget.parse("4.5bpw"),
    "formats": ("int2_g32", "int4_g32", "int8_g32"),
    "pinned": "int8_g32",
    "n_trials": 8,
    "n_finalists": 4,
    "dtype": "float32",
    "device": "cpu",
}
LOSSES = {"images": "kl", "sentences": "cosine_error"}


@pytest.fixture(scope="module")
def studies(vit_folder, digit_files, bert_folder, sentence_files):
    def texts(folder, end):
        return {
            name: TextSource(str(folder / f"{name}{end}"), n, 32)
            for name, n in (("calibration", 8), ("evaluation", 40))
        }

    return {
        "images": Study(
            str(vit_folder), **texts(digit_files, ""), **CHOICES, n_search_sequences=24
        ),
        "sentences": Study(
            str(bert_folder),
            **texts(sentence_files, ".txt"),
            **CHOICES,
            n_search_sequences=12,
            quantizer=Choice("gptq"),
        ),
    }


@pytest.fixture(scope="module", params=LOSSES)
def finished(request, studies, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return studies[request.param], run_study(studies[request.param], folder), folder


def test_error_feedback_of_an_encoder_lowers_what_positions_lose_of_their_outputs(
    studies, tmp_path
):
    inputs = prepare(studies["sentences"])
    names = [layer.name for layer in inputs.space.layers]
    grams = input_grams(inputs.model.module, inputs.estimation, names, relative=True)

    def lost(quantizer):
        study = replace(studies["sentences"], quantizer=Choice.parse(quantizer))
        bank = build_bank(study, inputs, tmp_path)
        errors = (
            bank.weight(name, "int2_g32") - get_weight(inputs.model.module, name) for name in names
        )
        return sum(
            float(((error @ grams[name]) * error).sum().log())
            for name, error in zip(names, errors, strict=True)
        )

    assert lost("gptq") == lost("gptq:relative=true")
    plain = replace(studies["sentences"], quantizer=Choice.parse("gptq:relative=false"))
    differ = dict(inputs.identity(studies["sentences"]).items() - inputs.identity(plain).items())
    assert differ == {"errors of positions": "relative to outputs"}
    assert lost("gptq") < lost("gptq:relative=false") - 0.01 * len(names)


def test_error_feedback_of_other_models_counts_positions_alike(studies, tmp_path):
    inputs = prepare(studies["images"])
    digests = [
        build_bank(
            replace(studies["images"], quantizer=Choice.parse(quantizer)), inputs, tmp_path
        ).digest
        for quantizer in ("gptq", "gptq:relative=false", "gptq:relative=true")
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_front_is_over_the_loss_of_the_task(finished):
    study, front, folder = finished
    task = "images" if study.quantizer.name == "rtn" else "sentences"
    assert front.loss == LOSSES[task]
    best = front.best(front.loss, **study.budget.bounds())
    assert best.values["bits_per_weight"] <= 4.5
    uniform = [t for t in Results(folder).trials("evaluation") if t.origin == "uniform"]
    two = next(t for t in uniform if main_format(t, Results(folder).space) == "int2_g32")
    assert best.loss < two.loss
    wanted = {
        "images": {"kl", "kl_stderr", "top1_error", "label_error"},
        "sentences": {"cosine_error", "cosine_error_stderr", "rank_correlation_error"},
    }
    assert wanted[task] <= best.values.keys()
    assert "perplexity" not in best.values
    assert (
        Results(folder)
        .identity["task"]
        .startswith({"images": "ImageClassification", "sentences": "SentenceEmbedding"}[task])
    )


def test_a_finished_folder_goes_on_from_what_it_has(finished, tmp_path):
    study, front, folder = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "trials.jsonl").read_text()
    assert run_study(study, tmp_path).trials == front.trials
    assert (tmp_path / "trials.jsonl").read_text() == before


def test_items_are_put_to_language_models_only(finished, tiny_items):
    study, _, folder = finished
    with pytest.raises(InvalidArgument, match="to language models only") as refused:
        list(examined(points(folder), of_files([tiny_items])))
    assert study.model in str(refused.value)
    with Results(folder).locked():  # although the error, and all that it passed, is still there
        pass


def test_the_page_names_the_loss(finished):
    _, front, folder = finished
    made = page.html(report_data(folder))
    if front.loss == "cosine_error":
        assert "best measured allocation has cosine error" in made
        assert "cosine error ± stderr" in made
        assert "nats per token" not in page.headline(report_data(folder))
    else:
        assert "best measured allocation has KL" in made
        assert "label err" in made


@pytest.mark.parametrize("exporter", ["packed", "fake_quant"])
def test_a_checkpoint_is_what_was_measured(finished, exporter, tmp_path):
    study, front, folder = finished
    best = front.best(front.loss, **study.budget.bounds())
    out = tmp_path / "checkpoint"
    export_checkpoint(study, best, out, exporter, folder)
    found = verify(out)
    assert found.differences == ()
    assert found.values[front.loss] == pytest.approx(best.loss, rel=0.05, abs=1e-3)
    model = load_exported(out, dtype="float32", device="cpu")
    if front.loss == "cosine_error":
        assert task_of(model) == SentenceEmbedding("mean")
    else:
        assert json.loads((out / "preprocessor_config.json").read_text())["image_std"]
    with pytest.raises(InvalidArgument, match="language models only"):
        check(out, "transformers")


def test_a_study_says_its_task_only_where_it_was_asked_for(studies):
    study = studies["images"]
    assert "task" not in json.loads(study.to_json())
    asked = Study.from_json(study.to_json().replace("{", '{"task": "images",', 1))
    assert asked.task == "images"
    assert asked.digest != study.digest
    assert Study.from_json(asked.to_json()) == asked
    with pytest.raises(InvalidArgument, match="task 'video': use auto, text, images, sentences"):
        Study.from_json(study.to_json().replace("{", '{"task": "video",', 1))


def test_the_same_images_twice_are_refused(studies, digit_files, tmp_path):
    study = studies["images"]
    same = TextSource(study.calibration.source, 40, 16)
    with pytest.raises(InvalidText, match="share"):
        run_study(replace(study, evaluation=same), tmp_path)


def test_other_pooling_is_another_study(finished, bert_folder, tmp_path):
    study, front, folder = finished
    if front.loss != "cosine_error":
        return
    shutil.copytree(bert_folder, tmp_path / "model")
    shutil.copytree(folder, tmp_path / "out")
    (tmp_path / "model" / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    with pytest.raises(MismatchedArtifact, match="task was SentenceEmbedding"):
        run_study(replace(study, model=str(tmp_path / "model")), tmp_path / "out")


def test_two_sentences_have_no_ranks(studies, tmp_path):
    with pytest.raises(InvalidArgument, match="2 sentences have no rank correlation"):
        run_study(replace(studies["sentences"], n_search_sequences=2), tmp_path)


@pytest.mark.parametrize("name", ["calibration", "evaluation"])
def test_a_model_of_images_asks_for_what_was_not_given(name, studies, tmp_path):
    study = replace(studies["images"], **{name: getattr(Study, name)})
    with pytest.raises(InvalidArgument, match=f"reads a folder of images.*give --{name}"):
        run_study(study, tmp_path)
