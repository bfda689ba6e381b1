"""A manifest is enough to measure a checkpoint again, to make it again, and to see any change."""

import json
import shutil
from dataclasses import replace

import pytest

from bitfront import Choice, TextSource, export_checkpoint, run_study
from bitfront.errors import InvalidArgument, InvalidText, MismatchedArtifact
from bitfront.export import EXPORTERS as PLUGINS
from bitfront.manifest import Manifest, digests
from bitfront.notes import MANIFEST
from bitfront.proof.again import export_again
from bitfront.proof.check import check
from bitfront.proof.rebuilt import rebuilt
from bitfront.proof.verify import verify
from bitfront.results import Results
from tests.proof import corruptions

EXPORTERS = ("packed", "fake_quant", "compressed_tensors", "gguf")


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_what_was_measured_is_measured_again(exporter, exported):
    found = verify(exported(exporter))
    assert found.differences == ()
    for name in ("kl", "perplexity", "top1_error", "bits", "bits_per_weight", "bytes"):
        assert found.values[name] == pytest.approx(found.recorded[name], rel=0.02, abs=0.01)
    assert found.values["kl"] == pytest.approx(found.recorded["kl"], rel=0.05)
    if exporter == "packed":  # every stored number is the measured one
        assert found.values["kl"] == pytest.approx(found.recorded["kl"], rel=1e-6)


def test_sizes_that_are_not_those_of_the_folder_are_said_to_be_the_points(exported, run):
    noted = {
        name: "sizes are those of the point" in run("verify", exported(name))[1]
        for name in (*EXPORTERS, "fake_quant:max_shard_size=5MB")
    }
    assert [name for name in noted if not noted[name]] == ["packed"]


@pytest.fixture(scope="module")
def asymmetric(proven, tmp_path_factory):
    """A study whose asymmetric integers GGUF and compressed-tensors do not hold."""
    study = replace(proven[0], formats=("int4_g32", "int8_g32"), pinned="int8_g32")
    out = tmp_path_factory.mktemp("asymmetric")
    run_study(study, out)
    return study, out


@pytest.mark.parametrize(
    ("exporter", "runtime", "told"),
    [
        ("gguf", "llama_cpp", "rounded anew, to Q8_0"),
        ("gguf:unquantized=true", "llama_cpp", "unquantized"),
        ("compressed_tensors:symmetric=true", "transformers", "rounded anew, to int"),
    ],
)
def test_weights_that_were_not_measured_are_neither_measured_again_nor_checked(
    exporter, runtime, told, asymmetric, tmp_path, run
):
    study, out = asymmetric
    folder = tmp_path / "checkpoint"
    point = Results(out).front().best("kl", bits_per_weight=5.0)
    export_checkpoint(study, point, folder, exporter, out)
    code, said, _ = run("verify", folder)
    assert code == 0, said
    assert said.startswith("As recorded: ")
    assert said.count("\n") == 1
    assert told in said
    found = verify(folder)
    assert told in found.note
    assert "sizes are those of the point" in found.note
    assert "kl" not in found.values
    with pytest.raises(InvalidArgument, match=f"{told}.*search with --runtime {runtime}"):
        check(folder, runtime)
    (folder / "config.json").write_text("{}")
    assert any(line.startswith("config.json ") for line in verify(folder).differences)


def test_a_manifest_says_what_the_checkpoint_was_made_of(proven, exported):
    study, out = proven
    folder = exported("packed")
    manifest = Manifest.read(folder)
    assert manifest.study == study
    assert manifest.identity == Results(out).identity
    assert manifest.trial == Results(out).front().best("kl", bits_per_weight=5.0)
    assert {"bitfront", "torch", "transformers", "python"} <= manifest.written_with.keys()
    assert "command" in manifest.measured_with
    assert set(manifest.files) == {
        p.name for p in folder.iterdir() if p.name != MANIFEST and not p.name.startswith("check-")
    }
    fields = json.loads((folder / MANIFEST).read_text())
    assert fields["study_digest"] == study.digest
    assert fields["allocation"] == dict(manifest.trial.allocation.formats)
    assert fields["command"].startswith("bitfront export . --exporter packed")


def test_each_difference_is_a_line(exported, tmp_path, run):
    folder = shutil.copytree(exported("packed"), tmp_path / "copy")
    corruptions.flip_codes(folder)
    (folder / "generation_config.json").unlink()
    (folder / "more.txt").write_text("more")
    fields = json.loads((folder / MANIFEST).read_text())
    fields["trial"]["values"] |= {"kl": 2.0, "bytes": 1.0}
    fields["identity"]["evaluation tokens"] = "of another text"
    (folder / MANIFEST).write_text(json.dumps(fields))
    code, said, _ = run("verify", folder)
    assert code == 1
    lines = said.splitlines()
    for beginning in (
        "model.safetensors has SHA-256", "generation_config.json is missing", "more.txt was not",
        "evaluation tokens was of another text", "kl is", "bytes is",
    ):  # fmt: skip
        assert sum(line.startswith(beginning) for line in lines) == 1, said


def test_a_layer_that_the_manifest_lost_is_a_line_and_not_a_smaller_size(exported, tmp_path):
    folder = shutil.copytree(exported("fake_quant"), tmp_path / "copy")
    fields = json.loads((folder / MANIFEST).read_text())
    lost = next(name for name in fields["allocation"] if "mlp" in name)
    del fields["allocation"][lost]
    (folder / MANIFEST).write_text(json.dumps(fields))
    found = verify(folder)
    assert any(repr(lost) in line or lost in line for line in found.differences)
    assert "bytes" not in found.values


def test_words_of_a_manifest_that_no_file_bears_out_are_lines(exported, tmp_path):
    folder = shutil.copytree(exported("fake_quant"), tmp_path / "copy")
    fields = json.loads((folder / MANIFEST).read_text())
    del fields["allocation"]["model.embed_tokens"]
    fields["allocation"]["model.layers.9.mlp.up_proj"] = "int4_g32_sym"
    (folder / MANIFEST).write_text(json.dumps(fields | {"exporter": "fake_quantt"}))
    assert verify(folder).differences == (
        "model.embed_tokens was int8_g32_sym, is absent in the manifest.",
        "model.layers.9.mlp.up_proj is int4_g32_sym in the manifest, and no layer of the model.",
        "Unknown exporter 'fake_quantt'. Did you mean 'fake_quant'? "
        f"Available: {', '.join(PLUGINS.names())}.",
    )


def test_codes_that_changed_are_seen_without_digests(altered):
    found = verify(altered("packed", corruptions.invert))
    assert any(line.startswith("kl is") for line in found.differences)


@pytest.mark.parametrize("quantizer", ["rtn", "gptq"])
def test_the_command_of_a_manifest_writes_the_same_files(
    quantizer, proven, exported, tmp_path, run, monkeypatch
):
    """From the unquantized model and, for gptq, the text alone."""
    folder = exported("packed")
    if quantizer == "gptq":
        study = replace(proven[0], quantizer=Choice("gptq"))
        run_study(study, tmp_path / "results")
        point = Results(tmp_path / "results").front().best("kl", bits_per_weight=5.0)
        folder = tmp_path / "made"
        export_checkpoint(study, point, folder, results=tmp_path / "results")
    monkeypatch.chdir(folder)
    out = tmp_path / "again"
    command = Manifest.read(folder).command.replace("../again", str(out)).split()
    assert command[0] == "bitfront"
    code, _, errors = run(*command[1:])
    assert code == 0, errors
    assert digests(out) == digests(folder)
    assert Manifest.read(out) == Manifest.read(folder)


def test_another_model_or_a_lost_text_is_refused(exported, tiny_folder, tmp_path, monkeypatch):
    other = shutil.copytree(tiny_folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    folder = exported("packed")
    with pytest.raises(MismatchedArtifact, match=r"model was .*--model"):
        check(folder, "transformers", model=str(other))
    assert any(line.startswith("model was") for line in verify(folder, str(other)).differences)
    monkeypatch.setattr("bitfront.proof.rebuilt._check", lambda *_: None)
    manifest = Manifest.read(folder)
    gone = TextSource("gone.txt", 2, 64)
    lost = replace(manifest.study, quantizer=Choice("gptq"), calibration=gone)
    made = rebuilt(replace(manifest, study=lost))
    with pytest.raises(InvalidText, match="Or give the results folder"), made:
        pass


def test_a_damaged_manifest_is_one_line(exported, tmp_path):
    folder = shutil.copytree(exported("packed"), tmp_path / "copy")
    for text in (
        "{",
        "[]",
        '{"study": {}}',
        (folder / MANIFEST).read_text().replace('"seed": 0', '"seed": 1'),
    ):
        (folder / MANIFEST).write_text(text)
        with pytest.raises(MismatchedArtifact, match=r"manifest\.json is damaged"):
            Manifest.read(folder)


def test_a_checkpoint_can_become_that_of_another_exporter(exported, tmp_path):
    export_again(exported("packed"), tmp_path / "plain", "fake_quant")
    assert Manifest.read(tmp_path / "plain").exporter == "fake_quant"
    assert digests(tmp_path / "plain") == digests(exported("fake_quant"))
