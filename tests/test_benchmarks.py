"""Each benchmark script that runs a model does so, on the tiny one, and writes whole rows."""

import csv
import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from multimodal import N_TRAINING, TASKS, samples_for, write_samples

from bitfront.harness import task_of

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(__file__).parent / "data"
SCRIPTS = {
    "activations": "--weights int4_g32 --inputs int4 --pairs mxfp4_amxfp4"
    " --menu int8_g32_aint8 --points int4_g32_aint8 --n-trials 4"
    " --n-sequences 1 --n-search 1 --n-evaluation 1",
    "answers": "--items {items} --n-items 3 --budgets 4bits --formats int4_g32,int8_g32"
    " --pin int8_g32 --search sweep --n-trials 3 --n-sequences 1 --n-search 1 --n-evaluation 1",
    "answers --tasks": "--tasks book --include {include} --n-items 3 --budgets 4bits"
    " --formats int4_g32,int8_g32 --pin int8_g32 --search sweep --n-trials 3 --n-sequences 1"
    " --n-search 1 --n-evaluation 1",
    "decoupled": "--second-calibration {data}/alice.txt --second-evaluation {data}/persuasion.txt"
    " --arms decoupled --budget 4bits --formats int2_g32,int8_g32 --n-trials 4 --n-sequences 1"
    " --n-search 1 --n-evaluation 1 --n-finalists 2",
    "estimators": "--estimators linearity:max_sequences=1 --n-sequences 2 --n-judged 1"
    " --n-allocations 6",
    "experts": "--groupings block --budgets 3.5 --seeds 0 --n-trials 5 --n-sequences 2"
    " --n-search 1 --n-evaluation 1",
    "formats": "--formats int4_g32,int4_g128 --quantizers rtn --n-sequences 1 --n-evaluation 1",
    "fronts": "--budgets 3.5 --n-trials 7 --n-search 1 --n-evaluation 1",
    "fronts --search sweep": "--search sweep --budgets 3.5 --n-trials 6 --n-search 1"
    " --n-evaluation 1",
    "kv_caches": "--points int4_g32+int8_g32 --formats int2_g32,int4_g32 --uniform int8_g32"
    " --kv-formats int2_g32,int8_g32 --at b1c64 --window 8 --sinks 2 --n-trials 5"
    " --n-sequences 1 --n-search 1 --n-evaluation 1",
    "latency": "--context 16 --n-points 2 --rounds 1",
    "multimodal": "--estimators by_part --budgets 3 --seeds 0 --n-trials 6 --n-sequences 4"
    " --formats int2_channel,int4_channel --n-search 2 --n-evaluation 4",
    "precision": "--n-allocations 4 --n-judged 1",
    "searches": "--budget 3.5bits --searches sweep,trust_region --steps 7 --seeds 0 --n-search 1",
    "searches --costs": "--budget 3.5bits --searches sweep --steps 7 --seeds 0 --n-search 1"
    " --costs memory,roofline:device=l4",
    "searches --n-pairs": "--budget 3.5bits --searches sweep:solver=quadratic,sweep --n-pairs 1"
    " --steps 9 --seeds 0 --n-search 1",
    "task_vectors": "--steps 2 --budgets 3.0 --formats zero,int2_g32,int4_g32 --shared int4_g32"
    " --pin int4_g32 --n-trials 3 --n-sequences 1 --n-search 1 --n-evaluation 1",
}
MODELS = {"experts": "tiny_moe", "multimodal": "tiny_llava"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_writes_rows(name, rows_of, tmp_path, tiny_items):
    script = name.partition(" ")[0]
    model = MODELS.get(script, "tiny_llama")
    texts = [DATA / "alice.txt", DATA / "persuasion.txt"]
    if model == "tiny_llava":
        unseen = samples_for(TASKS[model])[N_TRAINING:]
        parts = {"calibration": unseen[:6], "evaluation": unseen[6:10]}
        texts = [
            write_samples(TASKS[model], x, tmp_path / f"{n}.safetensors") for n, x in parts.items()
        ]
    task = json.dumps(task_of(tiny_items, "book"))  # JSON is YAML
    (tmp_path / "book.yaml").write_text(task)
    options = SCRIPTS[name].format(data=DATA, items=tiny_items, include=tmp_path).split()
    assert rows_of(script, [DATA / model, *texts, *options, "--length", "64"])


def test_a_vit_is_searched_at_budgets_between_uniform_pairs(
    rows_of, tmp_path, vit_folder, digit_files
):
    """Both kinds of budget; bit operations of W4A8 are half of those of W8A8."""
    folder = tmp_path / "images"
    shutil.copytree(vit_folder, folder / "vit")
    for name, part in (("calibration", "calibration"), ("held_out", "evaluation")):
        shutil.copytree(digit_files / part, folder / name)
    (folder / "evaluation").mkdir()
    for index, path in enumerate(sorted((folder / "held_out").rglob("*.png"))):
        if index % 4 == 0:
            moved = folder / "evaluation" / path.parent.name / path.name
            moved.parent.mkdir(exist_ok=True)
            path.rename(moved)
    sizes = "--n-calibration 4 --n-search 4 --n-evaluation 8 --n-held-out 20 --n-trials 5"
    options = ["--ratios", "0.623", "--sizes", "0.776", *sizes.split()]
    rows = rows_of("vit", [folder, *options])
    uniform = {row["allocation"]: row for row in rows if not row["budget"]}
    four, eight = (uniform[f"uniform int{n}_channel_aint8_asym"]["gbops"] for n in (4, 8))
    assert float(four) == pytest.approx(float(eight) / 2, abs=1e-4)
    by_bops, by_size = (row for row in rows if row["budget"])
    assert float(by_bops["gbops"]) <= 0.623 * float(eight) + 1e-4
    assert float(by_bops["over_uniform"]) > 0
    # W4A4 and W4A8 have one size: what is better of them counts.
    better = float(uniform["uniform int4_channel_aint8_asym"]["kl"])
    assert 0 < float(by_size["uniform_kl"]) <= better
    assert float(by_size["mib"]) < float(uniform["uniform int8_channel_aint8_asym"]["mib"])


@pytest.fixture
def rows_of(tmp_path, monkeypatch):
    """Run a script in a copy of its folder, in this process; rows that it writes."""
    folder = tmp_path / "benchmarks"
    shutil.copytree(ROOT / "benchmarks", folder, ignore=shutil.ignore_patterns("results"))
    for path in folder.glob("*.py"):
        monkeypatch.delitem(sys.modules, path.stem, raising=False)  # of another folder
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)
    loaded = set(sys.modules)

    def run(script, arguments):
        words = [str(folder / f"{script}.py"), *map(str, arguments), "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", words)
        runpy.run_path(words[0], run_name="__main__")
        with (folder / "results" / f"{script}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert all(None not in row and None not in row.values() for row in rows)
        return rows

    yield run
    for name in set(sys.modules) - loaded:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]  # the next script has a copy of its own
