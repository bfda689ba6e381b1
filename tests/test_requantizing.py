"""A point of a finished study, quantized again by gptaq for its allocation when it is exported."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bitfront import Choice, Study, TextSource, Trial, export_checkpoint, run_study
from bitfront.errors import InvalidArgument, MismatchedArtifact, UnknownPlugin
from bitfront.manifest import Manifest
from bitfront.notes import MANIFEST
from bitfront.proof.again import export_again
from bitfront.proof.rebuilt import rebuilt
from bitfront.proof.verify import verify
from bitfront.requantizing import requantized as requantize
from bitfront.results import Results
from tests.cli.conftest import run as run


@pytest.fixture(scope="module")
def finished(tiny_study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """A study that was searched with gptq, and its folder."""
    out = tmp_path_factory.mktemp("results")
    study = tiny_study(
        *(8, 4),
        formats=("int2_g32", "int3_g32", "int4_g32"),
        quantizer=Choice("gptq"),
        estimator=Choice("weight_error"),
        searches=(Choice("sweep"),),
        n_trials=1,
        n_search_sequences=1,
        dtype="float32",
    )
    run_study(study, out)
    return study, out


@pytest.fixture(scope="module")
def point(finished: tuple[Study, Path]) -> Trial:
    """At 3 bits per weight: 2 and their scales."""
    return Results(finished[1]).front().best("kl", bits_per_weight=3.0)


@pytest.fixture(scope="module")
def requantized(finished, point, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trial]:
    """The checkpoint, and what was measured."""
    study, out = finished
    folder = tmp_path_factory.mktemp("requantized") / "checkpoint"
    made = export_checkpoint(study, point, folder, results=out, requantize="gptaq:share=0.5")
    return folder, made


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_it_loses_less_and_is_measured_again_as_recorded(finished, point, requantized) -> None:
    folder, made = requantized
    assert made.values["kl"] < 0.95 * point.values["kl"]
    assert {made.number, made.text, made.allocation} == {
        point.number,
        "evaluation",
        point.allocation,
    }
    assert made.values["bytes"] == point.values["bytes"]
    found = verify(folder)
    assert found.differences == ()
    assert found.recorded == made.values
    assert found.values["kl"] == pytest.approx(made.values["kl"], rel=1e-6)


def test_the_manifest_says_what_was_done(finished, point, requantized) -> None:
    study, out = finished
    folder, made = requantized
    manifest, was = Manifest.read(folder), Results(out).identity
    assert manifest.study == study  # what was searched
    assert (str(manifest.requantized), manifest.trial) == ("gptaq:share=0.5", made)
    assert manifest.identity["quantizer"].startswith("Gptaq(")
    assert {k for k in was if was[k] != manifest.identity[k]} == {
        "quantizer",
        "quantized weights",
    }
    path = folder.parent / "told"
    shutil.copytree(folder, path)
    fields = json.loads((path / MANIFEST).read_text())
    del fields["requantized"]  # a folder that says nothing of it is not believed
    (path / MANIFEST).write_text(json.dumps(fields))
    assert any(line.startswith("quantizer was Gptaq(") for line in verify(path).differences)


def test_it_is_made_again_from_the_text_or_from_the_results_folder(
    finished, requantized, tmp_path: Path
) -> None:
    folder, _ = requantized
    export_again(folder, tmp_path / "again")
    assert weights(tmp_path / "again") == weights(folder)
    assert Manifest.read(tmp_path / "again").requantized == Choice("gptaq", {"share": 0.5})
    results = shutil.copytree(finished[1], tmp_path / "results")
    with rebuilt(Manifest.read(folder), results=results) as found:
        entry = found.bank.entries["model.layers.3.mlp.down_proj", "int2_g32"]
        assert found.bank.directory == results / "bank"
    (results / "bank" / entry[:2] / f"{entry}.safetensors").unlink()
    with (
        pytest.raises(MismatchedArtifact, match="missing or damaged"),
        rebuilt(Manifest.read(folder), results=results),
    ):
        pass


def test_a_plain_export_is_unchanged(finished, point, requantized, tmp_path: Path) -> None:
    study, out = finished
    made = export_checkpoint(study, point, tmp_path / "plain", results=out)
    assert made == point
    manifest = Manifest.read(tmp_path / "plain")
    assert (manifest.requantized, manifest.trial) == (None, point)
    assert "requantized" not in json.loads((tmp_path / "plain" / MANIFEST).read_text())
    assert manifest.identity == Results(out).identity
    assert manifest.measured_with == Results(out).environment
    assert verify(tmp_path / "plain").values["kl"] == pytest.approx(point.values["kl"], rel=1e-6)
    assert weights(tmp_path / "plain") != weights(requantized[0])


def test_the_command_tells_both_losses_and_what_was_no_gain(
    finished, point, tmp_path: Path, run
) -> None:
    asked = ["export", finished[1], "--at", "3bpw", "--out", tmp_path / "out", "--requantize"]
    code, said, told = run(*asked, "gptaq")
    assert (code, said) == (0, f"{tmp_path / 'out'}\n")
    now = Manifest.read(tmp_path / "out").trial.values["kl"]
    loss = f"KL was {point.values['kl']:.4g}, is {now:.4g} nats per token on the evaluation text."
    assert f"gptaq: {loss}" in told
    assert "no gain" not in told
    code, said, told = run(*asked, "gptaq:share=1.0,ridge=0.0001", "--json")
    found = json.loads(said.splitlines()[-1])
    assert found["values_before"] == point.values
    assert found["values"]["kl"] > point.values["kl"]
    assert "That is no gain: export without --requantize" in told


@pytest.mark.parametrize(
    ("quantizer", "change", "exporter", "error", "told"),
    [
        ("gptq", {}, "packed", InvalidArgument, "'gptq' needs no settled formats: search with it"),
        ("gptqa", {}, "packed", UnknownPlugin, "Did you mean"),
        ("gptaq:share=2", {}, "packed", InvalidArgument, "not above 0 and at most 1"),
        ("gptaq", {"base": "before"}, "packed", InvalidArgument, "differences from before"),
        ("gptaq", {"seed": 1}, "packed", MismatchedArtifact, "seed was 0, is 1"),
        (
            "gptaq",
            {},
            "auto_round",
            InvalidArgument,
            r"weights that gptaq made \(it writes a recipe",
        ),
    ],
)
def test_what_does_not_go_is_one_line(
    quantizer, change, exporter, error, told, finished, point, tmp_path: Path
) -> None:
    study, out = finished
    with pytest.raises(error, match=told) as refused:
        export_checkpoint(
            *(replace(study, **change), point, tmp_path / "checkpoint", exporter, out),
            requantize=quantizer,
        )
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "checkpoint").exists()


def test_a_checkpoint_is_not_quantized_again(requantized, tmp_path: Path, run) -> None:
    asked = ["export", requantized[0], "--out", tmp_path / "out", "--requantize", "gptaq"]
    code, _, errors = run(*asked)
    assert (code, errors.count("\n")) == (2, 1)
    assert "is a checkpoint: requantize has no meaning there" in errors


def test_sentence_encoders_are_refused(
    finished, point, bert_folder: Path, sentence_files: Path, tmp_path: Path
) -> None:
    texts = (str(sentence_files / f"{x}.txt") for x in ("calibration", "evaluation"))
    calibration, evaluation = (TextSource(text, 4, 32) for text in texts)
    study = replace(finished[0], model=str(bert_folder), n_search_sequences=4)
    study = replace(study, calibration=calibration, evaluation=evaluation)
    with pytest.raises(InvalidArgument, match="Only language models are quantized again by gptaq"):
        requantize(study, point, Choice("gptaq"), Results(tmp_path), lambda event: None)
