"""`bitfront profile` from the command line: a table, a search by it, a check, and refusals."""

import json
import re
import signal
import subprocess
import sys

import pytest

from bitfront.models.decoding import ROTATED_BYTES
from bitfront.timings import Timings
from tests.cli.commands import MENU, QUICK, one_line

FAST = ["--formats", MENU, "--pin", "int8_g32", "--context", "16", "--rounds", "1"]
FAST += ["--seconds", "0", "--dtype", "float32"]


def test_a_model_is_timed_searched_by_its_table_and_checked(tiny_folder, texts, tmp_path, run):
    table, out = tmp_path / "cpu.json", tmp_path / "out"
    code, shown, errors = run("profile", tiny_folder, *FAST, "--batch", "1,2", "--out", table)
    assert code == 0, errors
    assert re.search(r"rest of the step\s+context 16\s+2\s+[0-9.]+\s+0%", shown)
    assert str(table) in shown
    costs = ["--costs", f"memory,latency:table={table}", "--dtype", "float32"]
    search = ["search", tiny_folder, *QUICK, "--budget", "10s@b2c16", *texts, *costs, "--out", out]
    code, shown, errors = run(*search, "--estimator", "weight_error", "--search", "sweep")
    assert code == 0, errors
    assert re.search(r"trial +KL ± stderr +ppl +error +bpw +MB +ms +origin", shown)
    code, shown, errors = run(
        "profile", "--check", out, "--n-points", "2", "--rounds", "1", "--seconds", "0", "--json"
    )
    assert code == 0, errors
    rows = [json.loads(line) for line in shown.splitlines()]
    checked = [row for row in rows if "measured_ns" in row]
    assert len(checked) == 2
    assert all(row["batch"] == 2 and row["measured_ns"] > 0 and "error" in row for row in checked)


def test_an_interrupt_says_that_the_same_command_continues(tmp_path):
    path = tmp_path / "t.json"
    arguments = ["profile", "--shapes", "64x64,128x64", "--formats", "int4_g32", "--rounds"]
    # Started from a background job, a process inherits SIGINT ignored: take it as a terminal would.
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from bitfront.cli import main; main()"
    )
    command = [sys.executable, "-c", script, *arguments, "100000", "--seconds", "0", "--json"]
    with subprocess.Popen(
        [*command, "--out", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if json.loads(line)["done"] >= 5:
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The same command continues" in errors
    assert sum(len(t.samples) for t in Timings.load(path).entries.values()) >= 5


def test_formats_that_fit_no_layer_are_named_in_one_line(tmp_path, run, monkeypatch):
    monkeypatch.setitem(ROTATED_BYTES, "cpu", 1 << 16)  # no time is looked at
    formats = ["--formats", "int4_g32,int4_g128,int2_g128"]
    timing = ["--rounds", "1", "--seconds", "0", "--out", tmp_path / "t.json"]
    code, shown, errors = run("profile", "--shapes", "64x64,32x64", *formats, *timing)
    assert code == 0, errors
    said = [line for line in (shown + errors).splitlines() if "int4_g128" in line]
    assert len(said) == 1
    assert "int2_g128" in said[0]
    assert "int4_g32" not in said[0]
    assert {k.format for k in Timings.load(tmp_path / "t.json").entries} == {"int4_g32", "bf16"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give a model, or shapes"),
        (["--shapes", "64"], "outputs x inputs"),
        (["--shapes", "64x64", "--batch", "one"], "--batch"),
        (["--shapes", "64x64", "--formats", "int4_g7"], "int4_g7"),
        (["--shapes", "64x64", "--dtype", "float8"], "float32 or bfloat16"),
        (["--shapes", "64x64", "--device", "abacus"], "cpu or cuda"),
        (["--shapes", "64x64", "--rounds", "0"], "at least 1"),
        (["model", "--check", "results"], "Give a model to time, or --check"),
        (["--check", "nowhere"], "not a results folder"),
        (["nowhere/model.gguf"], "No model at"),
    ],
)
def test_refusals_are_one_line(arguments, told, tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    code, _, errors = run("profile", *arguments)
    assert one_line(code, errors)
    assert told in errors
    assert not list(tmp_path.iterdir())
