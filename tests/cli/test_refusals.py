"""Bad input: one clear line, exit code 2, nothing lost."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bitfront.allocation import Allocation
from bitfront.errors import StorageError
from bitfront.export.base import check_target
from bitfront.results import Results
from bitfront.trial import Trial
from tests.cli.commands import MENU, bitfront, one_line


def broken_model(folder: Path, tmp_path: Path, what: str) -> Path:
    model = tmp_path / "model"
    if what == "missing":
        return model
    shutil.copytree(folder, model)
    weights = model / "model.safetensors"
    if what == "corrupt":
        weights.write_bytes(weights.read_bytes()[:1000])
    if what == "pickle":
        weights.rename(model / "pytorch_model.bin")
    return model


@pytest.mark.parametrize("what", ["missing", "corrupt", "pickle"])
def test_bad_model_is_one_line(
    what: str, tiny_folder: Path, texts: list[str], tmp_path: Path, run
) -> None:
    model = broken_model(tiny_folder, tmp_path, what)
    out = tmp_path / "out"
    code, _, errors = run("search", model, "--budget", "4bpw", *texts, "--out", out)
    assert one_line(code, errors)
    assert out.exists() == (what != "missing")


@pytest.mark.parametrize("option", ["--calibration", "--evaluation"])
def test_a_mistyped_text_is_noticed_before_the_model_is_read(
    option: str, tmp_path: Path, texts: list[str], run
) -> None:
    (tmp_path / "model").mkdir()
    arguments = ["--budget", "4bpw", *texts, option, "nowhere.txt", "--out", tmp_path / "out"]
    code, _, errors = run("search", tmp_path / "model", *arguments)
    assert one_line(code, errors)
    assert "No text file at nowhere.txt" in errors
    assert not (tmp_path / "out").exists()


def test_an_occupied_folder_is_noticed_before_the_model_is_read(
    searched, tmp_path: Path, run
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("keep me")
    arguments = ["--out", tmp_path / "out", "--model", tmp_path / "model"]
    code, _, errors = run("export", searched[0], *arguments)
    assert one_line(code, errors)
    assert "has files of something else" in errors


def test_the_folder_that_one_stands_in_is_refused(
    searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out in (".", tmp_path / "here", ".."):
        code, _, errors = run("export", searched[0], "--out", out)
        assert one_line(code, errors)
        assert "the current folder, and would be replaced: give another folder" in errors
    assert list((tmp_path / "here").iterdir()) == []


def test_a_current_folder_that_was_deleted_hinders_nothing(tmp_path: Path, monkeypatch) -> None:
    for name in ("gone", "out"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    check_target(tmp_path / "out", str(tmp_path / "model"))


@pytest.mark.parametrize("files", [5, True, "letter.txt", [["letter.txt"]]])
def test_a_damaged_list_of_files_makes_none_of_them_the_exporters(files, tmp_path: Path) -> None:
    (tmp_path / "bitfront.json").write_text(json.dumps({"files": files}))
    (tmp_path / "letter.txt").write_text("keep me")
    with pytest.raises(StorageError, match=r"has letter\.txt, not written with the checkpoint"):
        check_target(tmp_path, str(tmp_path / "model"))


def test_what_a_user_put_beside_a_checkpoint_is_never_lost(searched, tmp_path: Path, run) -> None:
    out = tmp_path / "checkpoint"
    for _ in range(2):  # the second replaces what the first wrote
        code, _, errors = run("export", searched[0], "--out", out)
        assert code == 0, errors
    for own in ("notes.md", "web/manifest.json"):
        (out / own).parent.mkdir(exist_ok=True)
        (out / own).write_text("keep me")
        code, _, errors = run("export", searched[0], "--out", out)
        assert one_line(code, errors)
        assert f"has {own}, not written with the checkpoint there: give another folder" in errors
        assert (out / own).read_text() == "keep me"
        (out / own).unlink()


def test_an_export_that_lists_its_files_in_the_manifest_alone_is_replaced(
    searched, tmp_path: Path, run
) -> None:
    """As those did that were written before 2026-12."""
    out = tmp_path / "checkpoint"
    assert run("export", searched[0], "--out", out)[0] == 0
    note = json.loads((out / "bitfront.json").read_text())
    del note["files"]
    (out / "bitfront.json").write_text(json.dumps(note))
    code, _, errors = run("export", searched[0], "--out", out)
    assert code == 0, errors


BAD_OPTIONS = {
    "unknown estimator": (["--estimator", "fischer"], "Did you mean 'fisher'"),
    "unknown format": (["--formats", "int4_g46"], "Did you mean 'int4_g"),
    "unknown parameter": (["--estimator", "fisher:label=text"], "Did you mean 'labels'"),
    "unreadable budget": (["--budget", "four"], "3.5bpw or 60MB"),
    "budget too small": (["--budget", "1bpw"], "smallest reachable"),
    "budget above bf16": (["--budget", "16bpw"], "not below bf16"),
    "two budgets of one kind": (["--budget", "3bpw", "--budget", "4bpw"], "twice"),
    "time without a cost": (["--budget", "9ms@b1c64"], "add latency:table=FILE"),
    "no table": (["--costs", "memory,latency:table=nowhere.json"], "bitfront profile MODEL"),
    "format that fits nothing": (["--formats", "int4_g128"], "fits layer"),
    "missing text": (["--calibration", "nowhere.txt"], "nowhere.txt"),
    "too short text": (["--n-sequences", "100000"], "tokens"),
    "half a second text": (["--second-evaluation", "other.txt"], "Give --second-calibration and"),
    "missing items": (["--items", "nowhere.jsonl"], "Cannot read nowhere.jsonl"),
    "unknown option": (["--bugdet", "4bpw"], "--bugdet"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_option_is_one_line(
    case: str, tiny_folder: Path, texts: list[str], tmp_path: Path, run
) -> None:
    options, expected = BAD_OPTIONS[case]
    menu = ["--formats", MENU, "--pin", "none"]
    menu += [] if "--budget" in options else ["--budget", "4.2bpw"]
    arguments = ["search", tiny_folder, *menu, *texts, "--out", tmp_path / "out", *options]
    code, _, errors = run(*arguments)
    assert one_line(code, errors)
    assert expected in errors


def test_results_folder_that_is_none(tmp_path: Path, run) -> None:
    for command in ("front", "report"):
        code, _, errors = run(command, tmp_path)
        assert one_line(code, errors)
        assert "not a results folder" in errors or "no measured front" in errors


def test_disk_full_keeps_what_was_measured(searched, tmp_path: Path) -> None:
    """A write that fails halfway leaves earlier trials readable and the same command continues."""
    out = tmp_path / "out"
    shutil.copytree(searched[0], out)
    before = (out / "trials.jsonl").read_text()
    script = (
        "import resource, sys; from pathlib import Path; from bitfront.results import Results;"
        "from bitfront.errors import StorageError; import signal;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"results = Results(Path({str(out)!r})); trial = results.trials()[0];"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 10}, {len(before) + 10}));"
        "\ntry:\n    results.append(trial)\nexcept StorageError as error:\n    print(error)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    assert "Free some space" in process.stdout
    assert (out / "trials.jsonl").read_text() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("command", [["plugins"], ["front", "{}"]], ids=str)
def test_a_full_disk_behind_the_standard_output_is_one_line(command: list[str], searched) -> None:
    with Path("/dev/full").open("w") as full:
        process = bitfront(*(word.format(searched[0]) for word in command), stdout=full)
    assert one_line(process.returncode, process.stderr)
    assert process.stderr == "Error: Cannot write standard output: No space left on device.\n"


@pytest.mark.parametrize("n_points", [1, 400], ids=["short", "long"])
def test_a_reader_that_stops_early_gets_no_traceback(n_points: int, tmp_path: Path) -> None:
    """As `bitfront front results | head`: the pipe closes before the output is written."""
    for n in range(n_points):
        values = {"kl": 1 / (1 + n), "bits": 4.0, "bits_per_weight": 4.25, "bytes": float(n)}
        allocation = Allocation({"layer": "int4_g64"})
        Results(tmp_path).append(Trial(n, allocation, "evaluation", "sweep", values=values))
    reading, writing = os.pipe()
    os.close(reading)
    program = [sys.executable, "-c", "from bitfront.cli import main; main()"]
    # Unbuffered output would hide the last write, which is the interpreter's own.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    process = subprocess.run(
        [*program, "front", tmp_path],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        env=environment,
    )
    os.close(writing)
    assert process.stderr == b""
    assert process.returncode == 1


DAMAGED = ["study.json", "space.json", "tables/fisher.npz", "trials.jsonl", "environment.json"]


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_results_are_one_line(name: str, searched, tmp_path: Path, run) -> None:
    out = tmp_path / "out"
    shutil.copytree(searched[0], out, ignore=shutil.ignore_patterns("bank", "references"))
    (out / name).write_bytes(b"\x93\xff\x00garbage\n" * 20)
    code, _, errors = run("report", out)
    assert one_line(code, errors)
    assert f"{out / name} is damaged" in errors


@pytest.mark.parametrize(
    ("option", "value"), [("--formats", "int4_g32"), ("--estimators", ""), ("--estimators", "al")]
)
def test_a_comparison_of_nothing_is_refused(
    option: str, value: str, tiny_folder: Path, tmp_path: Path, run
) -> None:
    out = tmp_path / "out"
    code, _, errors = run("compare", tiny_folder, "--out", out, option, value)
    assert one_line(code, errors)
    assert "udget" not in errors
    assert not out.exists()
