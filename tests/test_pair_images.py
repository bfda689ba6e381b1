"""Image models searched over pairs of formats, exported, loaded and verified."""

import json
import shutil

import pytest
import torch
from transformers import (
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    SwinConfig,
    SwinForImageClassification,
)
from typer.testing import CliRunner

from bitfront import Budget, Study, TextSource, export_checkpoint, run_study
from bitfront.cli import app
from bitfront.formats import named
from bitfront.manifest import Manifest
from bitfront.models.quant_linear import QuantConv2d, QuantLinear
from bitfront.proof.rebuilt import rebuilt
from bitfront.proof.verify import verify
from bitfront.results import Results
from tests.export.exports import stored_bytes
from tests.proof import corruptions

FOUR, EIGHT = "int4_channel_aint4_asym", "int8_channel_aint8_asym"
TURNED = "int4_g32_had_aint4"  # fits no kernel but those of 1 x 1
CASES = {
    "vit": ("rtn", (FOUR, TURNED, EIGHT), {"bops": 60e6, "bytes": 95e3}),
    "convnet": ("gptq", (FOUR, EIGHT), {"bops": 45e6, "bytes": 60e3}),
}
"""Quantizer, menu and limits of each tiny model."""


def searched(folder, case, digit_files, out, dtype="float32", n_trials=7, n_finalists=3):
    """Search a model; results and the checkpoint of the answer are in `out`."""
    quantizer, menu, limits = CASES[case]
    run = CliRunner().invoke(
        app,
        [
            *("search", str(folder)),
            *("--budget", f"{limits['bops'] / 1e9}Gbops,{limits['bytes'] / 1e3}KB"),
            *("--formats", ",".join(menu), "--costs", "memory,bops", "--pin", "int8_channel"),
            *("--calibration", str(digit_files / "calibration"), "--n-sequences", "6"),
            *("--evaluation", str(digit_files / "evaluation"), "--n-search-sequences", "12"),
            *("--n-evaluation-sequences", "30", "--quantizer", quantizer),
            *("--n-trials", str(n_trials), "--n-finalists", str(n_finalists)),
            *("--dtype", dtype, "--device", "cpu", "--out", str(out / "results")),
            *("--checkpoint", str(out / "checkpoint"), "--json"),
        ],
    )
    assert run.exit_code == 0, run.output


@pytest.fixture(scope="module", params=CASES)
def finished(request, digit_files, tmp_path_factory):
    """Name of the case, its results and the checkpoint of its answer."""
    out = tmp_path_factory.mktemp("pairs")
    folder = request.getfixturevalue(f"{request.param}_folder")
    searched(folder, request.param, digit_files, out)
    return request.param, Results(out / "results"), out / "checkpoint"


def test_the_answer_mixes_pairs_within_both_limits(finished):
    case, results, _ = finished
    limits = CASES[case][2]
    best = results.front().best("kl", **limits)
    chosen, layers = best.allocation.formats, results.space.layers
    pairs = {x.name: named(chosen[x.name]) for x in layers}
    bops = sum(
        x.n_weights * x.positions * pairs[x.name].code_bits * pairs[x.name].input_format.num_bits
        for x in layers
    )
    assert best.values["bops"] == bops <= limits["bops"]
    assert best.values["bytes"] <= limits["bytes"]
    assert len({chosen[x.name] for x in layers}) > 1
    uniform = [t for t in results.trials("evaluation") if t.origin == "uniform"]
    assert len(uniform) >= 2
    assert best.loss < max(t.loss for t in uniform)


def test_the_checkpoint_weighs_what_was_counted_and_names_the_pairs(finished):
    case, results, folder = finished
    best = results.front().best("kl", **CASES[case][2])
    assert sum(stored_bytes(folder).values()) == best.values["bytes"]
    written = json.loads((folder / "config.json").read_text())["quantization_config"]["formats"]
    assert written.items() >= best.allocation.formats.items()


def test_the_loaded_checkpoint_predicts_what_our_own_arithmetic_does(finished, digit_pixels):
    """Quantized anew as the manifest says, inputs of every layer rounded as measured."""
    _, _, folder = finished
    pixels = digit_pixels[:40]
    loaded = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    assert any(isinstance(x, QuantConv2d) for x in loaded.modules())
    assert any(isinstance(x, QuantLinear) for x in loaded.modules())
    with torch.no_grad(), rebuilt(Manifest.read(folder)) as made:
        plain = made.model.module.float()(pixels).logits
        expected, found = made.patched()(pixels).logits, loaded(pixels).logits
    assert (expected - plain).norm() > 0.02 * plain.norm()
    assert (found - expected).norm() < 1e-3 * (expected - plain).norm()


def test_the_checkpoint_verifies(finished):
    _, _, folder = finished
    verified = CliRunner().invoke(app, ["verify", str(folder)])
    assert verified.exit_code == 0, verified.output
    assert "as recorded" in verified.output.lower()


def test_other_codes_do_not_verify(finished, tmp_path):
    """What rounding lets differ is a few images, not a model that was broken."""
    _, results, folder = finished
    broken = shutil.copytree(folder, tmp_path / "broken")
    layers = results.space.layers
    corruptions.invert(broken, layers[len(layers) // 2].name)
    assert any(line.startswith("kl is") for line in verify(broken).differences)


def test_in_bfloat16_packed_weights_may_move_inputs_by_a_step(vit_folder, digit_files, tmp_path):
    searched(vit_folder, "vit", digit_files, tmp_path, "bfloat16", n_trials=4, n_finalists=2)
    assert verify(tmp_path / "checkpoint").differences == ()


def swin():
    """Two stages: shifted windows and merged patches."""
    return SwinForImageClassification(SwinConfig(
        image_size=32, patch_size=4, embed_dim=32, depths=[2, 1], num_heads=[2, 2], window_size=4,
        num_labels=10, initializer_range=0.15,
    ))  # fmt: skip


def deit():
    """Three blocks, with the token of distillation and both heads, as the checkpoints have them."""
    return DeiTForImageClassificationWithTeacher(DeiTConfig(
        image_size=32, patch_size=8, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=2, num_labels=10, initializer_range=0.15,
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("build", "kind", "packed"),
    [
        (swin, SwinForImageClassification, "swin.encoder.layers.0.downsample.reduction"),
        (deit, DeiTForImageClassificationWithTeacher, "distillation_classifier"),
    ],
)
def test_other_transformers_are_searched_exported_and_verified(
    build, kind, packed, vit_folder, digit_files, tmp_path
):
    """Layers, pairs and packed weights, not accuracy: the weights are random."""
    torch.manual_seed(0)
    model = tmp_path / "model"
    build().save_pretrained(model)
    shutil.copy(vit_folder / "preprocessor_config.json", model)
    study = Study(
        str(model),
        Budget.parse("5bpw"),
        TextSource(str(digit_files / "calibration"), 4),
        TextSource(str(digit_files / "evaluation"), 8),
        formats=("int2_channel", "int4_channel", EIGHT),
        n_trials=4,
        n_search_sequences=4,
        n_finalists=1,
        pinned="int8_channel",
        dtype="float32",
        device="cpu",
    )
    best = run_study(study, tmp_path / "results").best("kl", bits_per_weight=5)
    assert EIGHT in best.allocation.formats.values()
    assert len(set(best.allocation.formats.values())) > 1
    out = tmp_path / "checkpoint"
    export_checkpoint(study, best, out, results=tmp_path / "results")
    assert sum(stored_bytes(out).values()) == best.values["bytes"]
    loaded = kind.from_pretrained(out, dtype=torch.float32)
    assert isinstance(loaded.get_submodule(packed), QuantLinear)
    assert verify(out).differences == ()
