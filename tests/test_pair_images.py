"""A vision transformer searched with pairs: its patch embedding is a convolution like any other."""

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForImageClassification
from typer.testing import CliRunner

from bitfront.cli import app
from bitfront.formats import named
from bitfront.models.quant_linear import QuantConv2d
from bitfront.proof.verify import verify
from bitfront.results import Results

MENU = "int4_g32_aint4,int4_g32_had_aint4,int8_g32_aint8"
PATCHES = "vit.embeddings.patch_embeddings.projection"
BOPS = 45e6


@pytest.fixture(scope="module")
def searched(vit_folder, digit_files, tmp_path_factory):
    """Results folder and packed checkpoint of a search within bit operations."""
    out = tmp_path_factory.mktemp("searched")
    images = f"--calibration {digit_files}/calibration --evaluation {digit_files}/evaluation"
    sizes = "--n-sequences 12 --n-search-sequences 8 --n-evaluation-sequences 24"
    others = "--costs memory,bops --budget 0.045Gbops --n-trials 6 --n-finalists 2 --device cpu"
    options = f"--formats {MENU} --pin int8_g32 {images} {sizes} {others} --dtype float32".split()
    folders = ["--out", str(out / "results"), "--checkpoint", str(out / "checkpoint")]
    run = CliRunner().invoke(app, ["search", str(vit_folder), *options, *folders])
    assert run.exit_code == 0, run.output
    return Results(out / "results"), out / "checkpoint"


def test_the_answer_meets_the_bit_operations_of_its_pairs(searched):
    results, _ = searched
    best, space = results.front().best("kl", bops=BOPS), results.space
    chosen = best.allocation.formats
    bops = sum(
        x.n_weights * x.positions * f.code_bits * f.input_format.num_bits
        for x in space.layers
        for f in [named(chosen[x.name])]
    )
    assert best.values["bops"] == bops <= BOPS
    assert len({chosen[x.name] for x in space.layers}) > 1
    of_patches = space.allowed[[x.name for x in space.layers].index(PATCHES)]
    assert of_patches.tolist() == [True, False, True]  # no rotation of 8 x 8 taps
    uniform = [t for t in results.trials("evaluation") if t.origin == "uniform"]
    narrow = [t.values["kl"] for t in uniform if t.values["bops"] <= BOPS]
    assert narrow
    assert best.values["kl"] < min(narrow)


def test_the_checkpoint_rounds_what_was_measured(searched):
    results, checkpoint = searched
    best = results.front().best("kl", bops=BOPS)
    with safe_open(checkpoint / "model.safetensors", framework="pt") as file:
        stored = sum(t.numel() * t.itemsize for t in map(file.get_tensor, file.keys()))
    assert stored == best.values["bytes"]
    loaded = AutoModelForImageClassification.from_pretrained(checkpoint, dtype=torch.float32)
    packed = loaded.get_submodule(PATCHES)
    assert isinstance(packed, QuantConv2d)
    assert packed.format.input_format is not None
    assert verify(checkpoint).differences == ()
