"""The benchmark of kernels: its arithmetic, and a whole run with a clock instead of CUDA graphs."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bitfront.kernels.replays import n_sets
from bitfront.timings import Timings

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
STAND_IN = """
import time
from products import Ceiling
from replays_of_gpu import Times, summary

class Launches:
    def __init__(self, calls): self.calls = calls
    def seconds(self):
        start = time.perf_counter()
        for call in self.calls: call()
        return (time.perf_counter() - start) / len(self.calls)

class Graph(Launches): pass

def interleaved(graphs, n_replays=3):
    return {name: summary([graph.seconds() for _ in range(3)]) for name, graph in graphs.items()}

def ceiling(): return Ceiling(1e10, 1e11, 1e-6)
def clock(): return ""
"""
SMALL = """
import products, torch
torch.cuda.get_device_name = lambda: "none"
from bitfront.kernels import replays as rotated
rotated.MAX_SETS = 3
small = [products.Shape(s.name, tuple(64 * (1 + i) for i in range(len(s.parts))), 256)
         for s in products.SHAPES]
products.SHAPE.update({s.name: s for s in small})
from bitfront.kernels import tuning
tuning.tune = lambda x, matrix, tensors: print("tuned", len(x), matrix.formats, len(tensors))
import multipliers
from pathlib import Path
class Broken(multipliers.Multiplier):
    def takes(self, format): return format in ("int4_g128_sym", "int8_g128_sym")
    def build(self, weights, names):
        raise RuntimeError(f"table {Path('table.json').exists()}\\nmore")
multipliers.METHODS += (Broken(),)
import gpu_kernels
gpu_kernels.Stack = lambda bits: products.Stack(bits, 4)
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
    assert products.Stack().average == pytest.approx(3.25, abs=0.03)
    assert products.Stack(4).average == 4
    widths = {name[:4] for _, names in products.Stack().layers() for name in names}
    assert widths == {"int2", "int3", "int4", "int5", "int8"}
    assert {name for _, names in products.Stack(16).layers() for name in names} == {"bf16"}
    assert products.Stack(3).n_bytes < products.Stack().n_bytes < products.Stack(4).n_bytes


def test_the_mix_is_that_of_the_searched_model(products):
    """At its own depth every layer has the bits that the search gave it; their mean is 3.25."""
    bits = json.loads(products.SEARCHED.read_text())["bits"]
    sizes = {"q": 576, "k": 192, "v": 192, "o": 576, "gate": 1536, "up": 1536, "down": 1536}
    total, n_blocks = 0, 30
    for part, digits in bits.items():
        found = [products.searched_bits(part, block, n_blocks) for block in range(n_blocks)]
        assert found == list(map(int, digits))
        total += sum(found) * sizes[part.partition(".")[2].removesuffix("_proj")]
    assert total / (n_blocks * sum(sizes.values())) == pytest.approx(3.25, abs=1e-9)
    deep = [products.searched_bits("mlp.down_proj", block, 60) for block in range(60)]
    assert deep[::2] == deep[1::2] == list(map(int, bits["mlp.down_proj"]))


def test_weight_sets_do_not_fit_the_cache(products):
    """Of an H200: 50 MB, four times."""
    for shape in products.SHAPES:
        for format in products.FORMATS:
            n_bytes = products.stored_bytes(shape, [format] * len(shape.parts))
            assert n_sets(n_bytes) * n_bytes >= 4 * 60e6


def test_a_stack_is_timed_by_the_methods_that_have_all_of_its_formats(products):
    import gpu_kernels

    found = {(m.name, stack.bits) for m, stack in gpu_kernels.stack_cases(gpu_kernels.METHODS)}
    ours = {("bitfront", bits) for bits in (3, 4, 8, None)}
    peers = {("humming", 3), ("humming", 4), ("humming", 8), ("gemlite", 4), ("gemlite", 8)}
    vllm = {(name, bits) for name in ("marlin", "machete") for bits in (4, 8)}
    assert found == ours | peers | vllm | {("cublas", 16)}


@pytest.mark.parametrize("bits", [4, 8])
def test_codes_for_vllm_lie_in_words_lowest_bits_first(products, bits):
    from multipliers import words_of

    codes = torch.randint(2**bits, (3, 64), dtype=torch.uint8)
    words = words_of(codes, bits)
    assert words.shape == (3, 64 * bits // 32)
    fields = torch.stack([words >> bits * i & (2**bits - 1) for i in range(32 // bits)], dim=-1)
    assert torch.equal(fields.reshape(3, 64), codes.int())


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
    assert "o int4_g128_sym: 8650752 bytes, 32 sets, bitfront" in plan
    assert "stack of 3.224 bits: 3455401984 bytes, bitfront" in plan
    assert "stack of 16.000 bits: 15009316864 bytes, cublas" in plan
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
    options = ("--methods", "bitfront,cublas,broken", "--batches", "1,3", "--n-rounds", "1")
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
    failed = [row for row in rows if row["method"] == "broken"]  # whose rows are all that it costs
    assert len(failed) == 7 * 2 + 1 + 1 + 2  # products, int4 of each segmented shape, stacks
    # It is built before our products of a shape are timed: the table is there from the first on.
    notes = [row["note"] for row in failed]
    assert notes == ["RuntimeError: table False"] * 2 + ["RuntimeError: table True"] * 16
    assert made.stderr.count("broken: RuntimeError: table") == len(failed)
    rows = [row for row in rows if row not in failed]
    assert {row["note"] for row in rows} == {"", "one launch for each part", "eager"}
    products = [row for row in rows if row["part"] == "products" and not row["note"]]
    assert len(products) == 7 * 2 * 10  # shapes, batches, formats
    assert sum(row["note"] == "eager" for row in rows) == len(products)
    stacks = {row["formats"]: row["method"] for row in rows if row["part"] == "stack"}
    assert list(stacks.values()) == ["cublas", *["bitfront"] * 4]
    for row in rows:
        assert float(row["microseconds"]) > 0
        assert float(row["of_roofline"]) > 0
        assert float(row["over_bf16"] or 1) > 0
    errors = {row["formats"]: float(row["error"]) for row in products}
    assert errors["bf16"] < 0.01 < errors["int8_g128_sym"] * 10
    assert errors["int2_g128_sym"] > errors["int3_g128_sym"] > errors["int4_g128_sym"]
