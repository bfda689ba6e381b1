"""What exporting a measured point needs: the model and the results folder, no text."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bitfront import Choice, Study, TextSource, Trial, export_checkpoint, run_study
from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument, MismatchedArtifact
from bitfront.models import bank, load
from bitfront.results import Results

QUANTIZERS = ("rtn", "gptq")


def searched(study: Study, out: Path) -> Study:
    run_study(study, out)
    gone = {name: TextSource("gone.txt", 2, 64) for name in ("calibration", "evaluation")}
    return replace(study, **gone)


@pytest.fixture(scope="module")
def finished(tiny_study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Study, Path]]:
    """By quantizer: a finished study whose texts are gone, and its folder."""
    made = {}
    for quantizer in QUANTIZERS:
        out = tmp_path_factory.mktemp(quantizer)
        study = tiny_study(
            *(2, 2),
            formats=("int3_g32", "int8_g32"),
            quantizer=Choice(quantizer),
            estimator=Choice("weight_error"),
            searches=(Choice("sweep"),),
            n_trials=1,
            n_search_sequences=2,
        )
        made[quantizer] = searched(study, out), out
    return made


@pytest.fixture(params=QUANTIZERS)
def study(request: pytest.FixtureRequest, finished, tmp_path: Path) -> tuple[Study, Path]:
    """A finished study and a copy of its folder, to damage."""
    study, out = finished[request.param]
    return study, Path(shutil.copytree(out, tmp_path / "results"))


def point(out: Path) -> Trial:
    return Results(out).front().best("kl", bits_per_weight=4.2)


def exported(study: Study, out: Path) -> str:
    """Digest of the weights of the checkpoint."""
    target = out.parent / "checkpoint"
    export_checkpoint(study, point(out), target, results=out)
    return hashlib.sha256((target / "model.safetensors").read_bytes()).hexdigest()


def files(out: Path) -> set[Path]:
    return set((out / "bank").rglob("*.safetensors"))


def test_neither_texts_nor_entries_of_other_allocations_are_needed(study) -> None:
    study, out = study
    expected, entries = exported(study, out), Results(out).bank_entries()
    used = {entries[key] for key in point(out).allocation.formats.items()}
    others = {path for path in files(out) if path.stem not in used}
    assert len(others) > len(used) / 2
    for path in others:
        path.write_bytes(b"damaged")
    assert exported(study, out) == expected
    assert {path for path in files(out) if path.read_bytes() == b"damaged"} == others


def test_each_entry_is_verified_once(study, monkeypatch) -> None:
    study, out = study
    verified, intact = [], bank._intact
    monkeypatch.setattr(bank, "_intact", lambda path, *a: verified.append(path) or intact(path, *a))
    exported(study, out)
    assert len(verified) == len(set(verified)) == len(point(out).allocation.formats)


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_a_damaged_bank_is_made_anew_or_named_in_one_line(study, damage: str) -> None:
    study, out = study
    expected = exported(study, out)
    for path in files(out):
        content = path.read_bytes()
        if damage == "missing":
            path.unlink()
        else:
            cut = content[:-1]
            path.write_bytes(cut if damage == "cut" else cut + bytes([content[-1] ^ 1]))
    if study.quantizer.name == "rtn":
        assert exported(study, out) == expected
        return
    with pytest.raises(MismatchedArtifact, match="run `bitfront search` again") as refused:
        exported(study, out)
    assert "\n" not in str(refused.value)


def test_another_model_or_quantizer_is_refused(study, tiny_folder: Path, tmp_path: Path) -> None:
    study, out = study
    other = Path(shutil.copytree(tiny_folder, tmp_path / "other"))
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"][0] /= 2
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    changed = {
        "model": replace(study, model=str(other)),
        "formats": replace(study, formats=("int3_g32", "int4_g32")),
        "pinned": replace(study, pinned="int4_g32"),
        r"layers \(of ties,.*\)": replace(study, tied=False),
        "quantizer": replace(study, quantizer=Choice("rtn", {"clip_steps": 0})),
    }
    for what, wrong in changed.items():
        with pytest.raises(MismatchedArtifact, match=f"{what} was"):
            exported(wrong, out)


def test_a_bank_of_other_weights_is_refused(study) -> None:
    study, out = study
    path = out / "identity.json"
    digest = Results(out).identity["quantized weights"]
    path.write_text(path.read_text().replace(digest, "0" * len(digest)))
    with pytest.raises(MismatchedArtifact, match="quantized weights was 0000"):
        exported(study, out)


def test_a_machine_that_prefers_another_dtype_exports_the_same(study, monkeypatch) -> None:
    study, out = study
    expected = exported(study, out)
    is_plain = Results(out).identity["dtype"] == "float32"
    other = torch.bfloat16 if is_plain else torch.float32
    monkeypatch.setattr(load, "compute_dtype", lambda device: other)
    assert exported(study, out) == expected


def test_a_folder_without_results_is_refused(study, tmp_path: Path) -> None:
    study, out = study
    with pytest.raises(InvalidArgument, match="not a results folder"):
        export_checkpoint(study, point(out), tmp_path / "checkpoint", results=tmp_path / "empty")


def test_what_an_exporter_cannot_write_is_refused_before_the_model_is_read(
    finished, tmp_path: Path
) -> None:
    study, out = finished["rtn"]
    lost, best = replace(study, model=str(tmp_path / "gone")), point(out)
    rounded = dict.fromkeys(best.allocation.formats, "int4_g64_aint8")
    pairs, offset = replace(best, allocation=Allocation(rounded)), replace(lost, base="alice/base")
    with pytest.raises(InvalidArgument, match="This point rounds inputs"):
        export_checkpoint(lost, pairs, tmp_path / "out", "fake_quant", results=out)
    with pytest.raises(InvalidArgument, match="differences from alice/base"):
        export_checkpoint(offset, best, tmp_path / "out", "gguf", results=out)


@pytest.mark.parametrize("content", [None, "{", "[1]", "{}", '{"a": "b"}'])
def test_a_damaged_list_of_the_bank_is_one_line(finished, content, tmp_path: Path) -> None:
    study, out = finished["gptq"]
    out = Path(shutil.copytree(out, tmp_path / "results"))
    (out / "bank.json").unlink()
    if content is not None:
        (out / "bank.json").write_text(content)
    with pytest.raises(MismatchedArtifact) as refused:
        exported(study, out)
    assert "\n" not in str(refused.value)
