"""One front over formats of weights, of inputs and of the KV cache, with exact bytes."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from bitfront import Budget, Study
from bitfront.cli import app
from bitfront.errors import InvalidArgument
from bitfront.formats import named
from bitfront.manifest import Manifest
from bitfront.models.packed_cache import PackedCache
from bitfront.proof.rebuilt import rebuilt
from bitfront.results import Results
from bitfront.run import export_checkpoint

LENGTH = 72
MENU = ("int4_g32", "int4_g32_aint8", "int4_g32_had_aint4", "int8_g32_aint8")
LIMITS = {"bytes": 200_000, "bops": 5e6}


@pytest.fixture(scope="module")
def finished(tiny_folder, calibration_file, evaluation_file, tmp_path_factory):
    """A results folder and the checkpoint of its answer."""
    out = tmp_path_factory.mktemp("pairs")
    run = CliRunner().invoke(
        app,
        [
            *("search", str(tiny_folder), "--budget", "200KB,0.005Gbops"),
            *("--formats", ",".join(MENU), "--costs", "memory,bops"),
            *("--calibration", str(calibration_file), "--evaluation", str(evaluation_file)),
            *("--kv-formats", "int2_g32,int8_g32,bf16", "--kv-at", f"b2c{LENGTH}"),
            *("--kv-window", "8", "--kv-sinks", "2", "--pin", "int8_g32", "--n-trials", "9"),
            *("--n-sequences", "2", "--n-search-sequences", "2", "--n-evaluation-sequences", "2"),
            *("--sequence-length", str(LENGTH), "--n-finalists", "3"),
            *("--out", str(out / "results"), "--checkpoint", str(out / "checkpoint"), "--json"),
        ],
    )
    assert run.exit_code == 0, run.output
    return Results(out / "results"), out / "checkpoint"


def test_the_answer_meets_both_budgets_with_pairs_and_caches(finished):
    results, _ = finished
    best = results.front().best("kl", **LIMITS)
    space, chosen = results.space, best.allocation.formats
    with_weights = [x for x in space.layers if not x.cache]
    bops = sum(
        x.n_weights * f.code_bits * (f.input_format.num_bits if f.input_format else 16)
        for x in with_weights
        for f in [named(chosen[x.name])]
    )
    assert best.values["bops"] == bops <= LIMITS["bops"]
    nbytes = sum(space.nbytes(x, named(chosen[x.name])) for x in space.layers)
    assert best.values["bytes"] == nbytes + space.outside_bytes <= LIMITS["bytes"]
    assert len({chosen[x.name] for x in with_weights}) > 1
    assert any(named(chosen[x.name]).input_format for x in with_weights)
    table = results.load_table("fisher_directional", space)
    assert "caches by cache_fisher, inputs by input_fisher" in table.source


def test_the_checkpoint_weighs_what_was_counted_and_says_what_inputs_become(finished):
    results, folder = finished
    best = results.front().best("kl", **LIMITS)
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        stored = sum(t.numel() * t.itemsize for t in map(file.get_tensor, file.keys()))
    assert stored + best.values["cache_bytes"] == best.values["bytes"]
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert any("_aint" in format for format in config["formats"].values())
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert PackedCache.of(model) is not None


def test_the_loaded_checkpoint_predicts_what_our_own_arithmetic_does(finished):
    """Quantized anew as the manifest says: what `bitfront check` holds engines against."""
    _, folder = finished
    tokens = torch.arange(2 * 40).view(2, 40) * 5 % 512
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad(), rebuilt(Manifest.read(folder)) as made:
        plain = made.model.module.float()(tokens).logits
        expected, found = made.patched()(tokens).logits, loaded(tokens).logits
    assert (expected - plain).norm() > 0.02 * plain.norm()
    assert (found - expected).norm() < 1e-4 * (expected - plain).norm()


def test_the_checkpoint_verifies_with_pairs_and_caches(finished):
    _, folder = finished
    verified = CliRunner().invoke(app, ["verify", str(folder)])
    assert verified.exit_code == 0, verified.output
    assert "as recorded" in verified.output.lower()


@pytest.mark.parametrize("exporter", ["fake_quant", "gguf", "auto_round", "gptqmodel", "modelopt"])
def test_exporters_that_say_nothing_of_inputs_refuse_in_one_line(finished, exporter, tmp_path):
    results, _ = finished
    best = results.front().best("kl", **LIMITS)
    with pytest.raises(InvalidArgument, match=r"rounds inputs of layers \(int.*packed") as refused:
        export_checkpoint(results.study, best, tmp_path / "out", exporter, results.directory)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_embeddings_have_no_inputs_to_round():
    with pytest.raises(InvalidArgument, match="an embedding has none: pin int8_g64"):
        Study("m", Budget(4, "bpw"), pinned="int8_g64_aint8")
