"""The benchmark of kernels: its arithmetic, and a whole run with a clock instead of CUDA graphs."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bitfront.timings import Timings

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
STAND_IN = """
import time
from products import Ceiling
from replays_of_gpu import Times, summary

class Graph:
    def __init__(self, calls): self.calls = calls
    def seconds(self):
        start = time.perf_counter()
        for call in self.calls: call()
        return (time.perf_counter() - start) / len(self.calls)

def interleaved(graphs):
    return {name: summary([graph.seconds() for _ in range(3)]) for name, graph in graphs.items()}

def ceiling(): return Ceiling(1e10, 1e11, 1e-6)
def clock(): return ""
"""
SMALL = """
import products, torch
torch.cuda.get_device_name = lambda: "none"
products.CACHE_BYTES = 1
small = [products.Shape(s.name, tuple(64 * (1 + i) for i in range(len(s.parts))), 256)
         for s in products.SHAPES]
products.SHAPE.update({s.name: s for s in small})
from bitfront.kernels import tuning
tuning.tune = lambda x, matrix, tensors: print("tuned", len(x), matrix.formats, len(tensors))
import gpu_kernels
gpu_kernels.main()
"""


@pytest.fixture
def products(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import products

    return products


def test_floors_are_those_of_the_roofline(products):
    """At 4.3 TB/s and 788 TFLOP/s, worked out by hand."""
    ceiling = products.Ceiling(4.3e12, 788e12, 0)
    gate = products.SHAPE["gate"]
    n_bytes = products.stored_bytes(gate, ["int3_g128_sym"])
    assert n_bytes == 14336 * 4096 * 3 / 8 + 14336 * 32 * 2
    one = (n_bytes + 2 * (14336 + 4096)) / 4.3e12
    assert ceiling.floor(gate, n_bytes, 1) == pytest.approx(one)
    many = 2 * 1024 * 14336 * 4096 / 788e12
    assert ceiling.floor(gate, n_bytes, 1024) == pytest.approx(many)


def test_the_mixed_stack_averages_what_it_says(products):
    assert products.Stack().average == pytest.approx(3.25, abs=0.005)
    assert products.Stack(4).average == 4
    widths = {name[:4] for _, names in products.Stack().layers() for name in names}
    assert widths == {"int2", "int3", "int4", "int8"}
    assert products.Stack(3).n_bytes < products.Stack().n_bytes < products.Stack(4).n_bytes


def test_weight_sets_do_not_fit_the_cache(products):
    for shape in products.SHAPES:
        for format in products.FORMATS:
            n_bytes = products.stored_bytes(shape, [format] * len(shape.parts))
            assert products.n_sets(n_bytes) * n_bytes >= 4 * products.CACHE_BYTES


@pytest.fixture
def run(tmp_path):
    """Runs the script, or code in its folder, and gives its rows."""
    folder = tmp_path / "benchmarks"
    shutil.copytree(BENCHMARKS, folder, ignore=shutil.ignore_patterns("results"))

    def ran(*words):
        return subprocess.run(
            [sys.executable, *words],
            cwd=folder,
            env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
            | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    return folder, ran


def test_the_plan_needs_no_gpu(products, monkeypatch, capsys):
    import gpu_kernels

    words = ["gpu_kernels.py", "--plan", "--shapes", "o,down", "--methods", "bitfront,cublas"]
    monkeypatch.setattr("sys.argv", words)
    gpu_kernels.main()
    plan = capsys.readouterr().out
    assert "o int4_g128_sym: 8650752 bytes, 28 sets, bitfront" in plan
    assert "stack of 3.252 bits" in plan
    monkeypatch.setattr("sys.argv", ["gpu_kernels.py", "--shapes", "p"])
    with pytest.raises(SystemExit):
        gpu_kernels.main()
    assert "'p' is none of k, o, q+k+v" in capsys.readouterr().err


def test_the_parts_of_a_search_are_timed_both_ways(run):
    folder, ran = run
    sizes = [
        "--n-tokens",
        "16",
        "--vocabulary",
        "600",
        "--rows",
        "64",
        "--columns",
        "256",
        "--n-rounds",
        "2",
    ]
    made = ran("gpu_search.py", "--device", "cpu", *sizes)
    assert made.returncode == 0, made.stderr[-3000:]
    with (folder / "results" / "gpu_search.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["part"] for row in rows} == {"kl", "reference", "quantize", "swap"}
    assert {float(row["largest_difference"]) for row in rows} == {0.0}


def test_a_whole_run_writes_rows_of_every_part(run):
    folder, ran = run
    (folder / "replays.py").rename(folder / "replays_of_gpu.py")
    (folder / "replays.py").write_text(STAND_IN)
    (folder / "small.py").write_text(SMALL)
    options = ("--methods", "bitfront,cublas", "--batches", "1,3", "--n-rounds", "1")
    made = ran("small.py", *options, "--table", "table.json", "--tune")
    assert made.returncode == 0, made.stderr[-3000:]
    assert "tuned 3 ('int4_g128_sym', 'int2_g128_sym', 'int3_g128_sym') 7" in made.stdout
    assert made.stdout.count("tuned 1 ") == 7 * 9 + 2 + 3 + 2  # products, mixed and uniform ones
    table = Timings.load(folder / "table.json")
    assert len(table.entries) == 3 * 2 * 9  # shapes of different size, batches, packed formats
    with (folder / "results" / "latencies.csv").open(newline="") as file:
        assert {row["n_shapes"] for row in csv.DictReader(file)} == {"1"}
    with (folder / "results" / "kernels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["part"] for row in rows} == {"products", "segments", "stack"}
    assert {row["note"] for row in rows} == {"", "one launch for each part"}
    products = [row for row in rows if row["part"] == "products"]
    assert len(products) == 7 * 2 * 10  # shapes, batches, formats
    for row in rows:
        assert float(row["microseconds"]) > 0
        assert float(row["of_roofline"]) > 0
        assert float(row["over_bf16"] or 1) > 0
    errors = {row["formats"]: float(row["error"]) for row in products}
    assert errors["bf16"] < 0.01 < errors["int8_g128_sym"] * 10
    assert errors["int2_g128_sym"] > errors["int3_g128_sym"] > errors["int4_g128_sym"]
