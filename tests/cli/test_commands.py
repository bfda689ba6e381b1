"""What the commands do, from a model to a checkpoint."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from bitfront import cli, formats
from bitfront.plugins import settings, summary
from bitfront.results import Results
from tests.cli.commands import MENU, QUICK, one_line


def test_search_ends_with_the_front_and_the_report(searched) -> None:
    out, process = searched
    assert process.returncode == 0, process.stderr
    assert "Measured front" in process.stdout
    assert str(out / "report.html") in process.stdout
    assert (out / "report.html").stat().st_size > 100_000


def test_front_prints_points_with_values_and_allocation(searched, run) -> None:
    code, out, _ = run("front", searched[0], "--format", "json")
    points = json.loads(out)
    assert code == 0
    assert points
    for point in points:
        assert {"kl", "kl_stderr", "perplexity", "bits", "bits_per_weight", "bytes"} <= set(
            point["values"]
        )
        assert set(point["allocation"].values()) <= set(MENU.split(","))


def test_report_can_be_written_again(searched, run) -> None:
    (searched[0] / "report.html").unlink()
    code, out, _ = run("report", searched[0])
    assert code == 0
    assert Path(out.strip()).exists()


def test_export_needs_neither_text(searched, texts: list[str], tmp_path: Path, run) -> None:
    out, checkpoint = tmp_path / "out", tmp_path / "checkpoint"
    shutil.copytree(searched[0], out)
    study = (out / "study.json").read_text()
    for path in (texts[1], texts[3]):
        assert path in study
        study = study.replace(path, str(tmp_path / "gone.txt"))
    (out / "study.json").write_text(study)
    code, shown, errors = run("export", out, "--out", checkpoint)
    assert code == 0, errors
    assert shown.strip() == str(checkpoint)
    assert (checkpoint / "model.safetensors").exists()


def test_exporters_take_parameters_and_say_what_they_rounded_anew(
    searched, tmp_path: Path, run
) -> None:
    code, _, errors = run(
        "export", searched[0], "--out", tmp_path / "cut", "--exporter", "packed:max_shard_size=30KB"
    )
    assert code == 0, errors
    assert (tmp_path / "cut" / "model.safetensors.index.json").exists()
    assert "rounded anew" not in errors
    code, _, errors = run("export", searched[0], "--out", tmp_path / "llama", "--exporter", "gguf")
    assert code == 0, errors
    assert "not the measured ones: " in errors
    assert "layers were rounded anew, to Q8_0. bitfront.json" in errors
    exporter = "compressed_tensors:symmetric=true"
    code, _, errors = run("export", searched[0], "--out", tmp_path / "ct", "--exporter", exporter)
    assert code == 0, errors
    assert "model.embed_tokens is stored at 16 bits, " in errors
    for exporter, message in {
        "compressed_tensors": "export with compressed_tensors:symmetric=true",
        "gguf:type=q4_0": "Unknown parameter 'type' of exporter 'gguf'",
        "ggguf": "Did you mean 'gguf'?",
    }.items():
        code, _, errors = run(
            "export", searched[0], "--out", tmp_path / "none", "--exporter", exporter
        )
        assert one_line(code, errors)
        assert message in errors


def test_a_results_folder_is_exported_from_any_directory_and_after_the_model_moved(
    tiny_folder: Path, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run
) -> None:
    shutil.copytree(tiny_folder, tmp_path / "a" / "tiny")
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    options = ["--estimator", "weight_error", "--search", "sweep"]
    options += ["--checkpoint", "../b/zeroth"]
    code, shown, errors = run("search", "tiny", *QUICK, *options, *texts, "--out", "../out")
    assert code == 0, errors
    assert "Checkpoint: ../b/zeroth" in shown
    monkeypatch.chdir(tmp_path / "b")
    code, _, errors = run("export", "../out", "--out", "first")
    assert code == 0, errors
    (tmp_path / "a" / "tiny").rename(tmp_path / "moved")
    code, _, errors = run("export", "../out", "--out", "second")
    assert one_line(code, errors)
    assert "No model at" in errors
    code, _, errors = run("export", "../out", "--out", "second", "--model", "../moved")
    assert code == 0, errors
    weights = [
        Path(name, "model.safetensors").read_bytes() for name in ("zeroth", "first", "second")
    ]
    assert weights[0] == weights[1] == weights[2]


def test_every_file_of_a_results_folder_is_documented(searched) -> None:
    documented = re.findall(r"\S+", str(Results.__doc__))
    files = [path for path in searched[0].iterdir() if not path.name.startswith(".")]
    assert {f"{path.name}{'/' * path.is_dir()}" for path in files} <= set(documented)
    tables = {path.name.partition("-")[0] for path in (searched[0] / "tables").iterdir()}
    assert tables == {"fisher.npz", "slopes"}
    assert "slopes-<allocation>.npz:" in documented


def test_plugins_lists_every_kind_with_parameters(run) -> None:
    code, out, _ = run("plugins", "--json")
    rows = json.loads(out)
    assert code == 0
    assert {row["kind"] for row in rows} >= {"estimator", "solver", "search", "format"}
    assert all(row["summary"] for row in rows)
    assert run("plugins")[0] == 0


def test_plugins_lists_formats_with_their_parameters(run) -> None:
    rows = {row["name"]: row for row in json.loads(run("plugins", "--json")[1])}
    assert rows["int4_channel_sym"]["parameters"] == {
        "num_bits": 4,
        "group_size": None,
        "symmetric": True,
    }
    assert rows["nf3_g64"]["parameters"] == {"num_bits": 3, "group_size": 64}
    for name, format in formats.catalogue().items():
        assert rows[name]["kind"] == "format"
        assert rows[name]["parameters"] == settings(format)
        assert summary(type(format)) in rows[name]["summary"]
        assert "\n" not in rows[name]["summary"]
    lines = run("plugins")[1].splitlines()
    assert all(f"  {name}  {row['summary']}" in lines for name, row in rows.items())
    assert "      num_bits=4, group_size=None, symmetric=True" in lines


def test_interrupt_says_how_to_continue_and_loses_at_most_one_trial(
    tiny_folder: Path, texts: list[str], tmp_path: Path
) -> None:
    arguments = ["search", str(tiny_folder), "--budget", "4.2bpw", "--formats", MENU, *texts]
    arguments += ["--estimator", "weight_error", "--n-trials", "5000", "--json"]
    # Started from a background job, a process inherits SIGINT ignored: take it as a terminal would.
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from bitfront.cli import main; main()"
    )
    program = [sys.executable, "-u", "-c", script]
    process = subprocess.Popen(
        [*program, *arguments, "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    shown = 0
    assert process.stdout
    for line in process.stdout:
        shown += "trial" in json.loads(line)
        if shown == 6:
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "same command continues" in errors
    assert len((tmp_path / "trials.jsonl").read_text().splitlines()) >= 6


TINY = {
    "opt": {"hidden_size": 64, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"word_embed_proj_dim": 32},
    "bert": {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    | {"num_attention_heads": 2, "is_decoder": True},
    "mixtral": {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    | {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4},
}


@pytest.fixture
def tiny(tiny_tokenizer, tmp_path: Path):
    """Writes a random model of a family with the tokenizer of the tiny Llama."""

    def write(family: str) -> Path:
        torch.manual_seed(0)
        sizes = {"vocab_size": 512, "max_position_embeddings": 128, "pad_token_id": 0}
        config = AutoConfig.for_model(family, **sizes, **TINY[family])
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / family)
        tiny_tokenizer.save_pretrained(tmp_path / family)
        return tmp_path / family

    return write


@pytest.mark.parametrize(
    ("family", "outside"),
    [
        ("opt", {"model.decoder.project_in", "model.decoder.project_out"}),
        ("bert", {"cls.predictions.transform.dense"}),
    ],
)
def test_layers_outside_the_blocks_go_the_whole_way(
    family: str, outside: set[str], tiny, texts: list[str], tmp_path: Path, run
) -> None:
    out, checkpoint = tmp_path / "out", tmp_path / "checkpoint"
    code, _, errors = run("search", tiny(family), *QUICK, *texts, "--out", out)
    assert code == 0, errors
    page = (out / "report.html").read_text()
    for name in outside:
        assert f'"{name}<br>' in page.replace("\\u003c", "<").replace("\\u003e", ">")
    code, _, errors = run("export", out, "--out", checkpoint)
    assert code == 0, errors
    allocated = json.loads((checkpoint / "bitfront.json").read_text())["formats"]
    assert outside <= set(allocated)
    loaded = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert all(loaded.get_submodule(name).format.name == allocated[name] for name in outside)
    tokens = AutoTokenizer.from_pretrained(checkpoint)("Alice", return_tensors="pt")
    with torch.no_grad():
        assert loaded(tokens["input_ids"]).logits.isfinite().all()


def test_stacked_experts_are_announced(tiny, texts: list[str], tmp_path: Path, run) -> None:
    n_stacked = 2 * 4 * 3 * 64 * 64
    folder = tiny("mixtral")
    n_weights = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(folder).parameters())
    quick = (*QUICK, "--experts", "none")
    code, _, errors = run("search", folder, *quick, *texts, "--out", tmp_path / "out")
    assert code == 0, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("Warning: ")]
    assert f"{n_stacked:,} of {n_weights:,} weights ({n_stacked / n_weights:.0%})" in line
    assert "stay at 16 bits" in line
    assert "bpw" in line
    page = (tmp_path / "out" / "report.html").read_text()
    assert "never quantized" in page


def test_a_model_that_is_searched_whole_warns_of_nothing(searched) -> None:
    assert "Warning" not in searched[1].stderr


def test_no_command_prints_the_help_and_no_error(run) -> None:
    code, out, errors = run()
    assert code == 0
    assert "Usage: " in out
    assert "export" in out
    assert "Error" not in errors


@pytest.mark.parametrize(("command", "continues"), [("search", True), ("export", False)])
def test_only_an_interrupted_search_promises_to_continue(
    command: str, continues: bool, monkeypatch: pytest.MonkeyPatch, run
) -> None:
    def interrupted(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    code, _, errors = run(command)
    assert code == 130
    assert errors.startswith("Stopped.")
    assert ("The same command continues" in errors) == continues
    # Tables and references are stored whole: an interrupted estimate begins again.
    assert ("the measurement, the table or the predictions in the making" in errors) == continues
