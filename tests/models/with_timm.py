"""Tests that need timm; `test_timm.py` runs them in a process that finds it."""

import copy
import json

import pytest
import torch
from digits import N_TRAINED, small_digits
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

from bitfront import Budget, Choice, Study, TextSource
from bitfront.formats import named
from bitfront.models.exported import load_exported
from bitfront.models.layers import blocks, find_layers, find_pinned
from bitfront.models.load import load_model
from bitfront.models.matrices import as_matrix, input_rows, output_rows, outputs_with, products
from bitfront.models.quant_linear import QuantConv2d, packed_like
from bitfront.models.tasks import IMAGES
from bitfront.proof.verify import verify
from bitfront.quantizers.rtn import Rtn
from bitfront.run import export_checkpoint, run_study
from tests.export.exports import stored_bytes

Conv2dSame = pytest.importorskip("timm.layers").Conv2dSame  # collected for doctests without it

PIXELS = {
    "input_size": [3, 32, 32],
    "interpolation": "nearest",
    "crop_pct": 1.0,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}


def untrained(architecture, **model_args):
    config = {
        "architecture": architecture,
        "num_classes": 10,
        "model_args": model_args,
        "pretrained_cfg": dict(PIXELS),
        "label_names": [f"digit {i}" for i in range(10)],
    }
    return TimmWrapperForImageClassification(TimmWrapperConfig.from_dict(config)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny EfficientNet with TensorFlow's padding that knows digits."""
    torch.manual_seed(0)
    model = untrained("test_efficientnet", pad_type="same").train()
    pixels, labels = (x[:N_TRAINED] for x in small_digits())
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for rows in torch.randperm(N_TRAINED).split(20):
        loss = cross_entropy(model(pixels[rows]).logits, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(made := tmp_path_factory.mktemp("timm"))
    return made


def test_a_search_gives_exact_bytes_and_a_checkpoint_that_is_what_was_measured(
    folder, digit_files, tmp_path
):
    study = Study(
        model=str(folder),
        budget=Budget.parse("90KB"),
        calibration=TextSource(str(digit_files / "calibration"), 6),
        evaluation=TextSource(str(digit_files / "evaluation"), 30),
        formats=("int2_channel", "int4_channel", "int8_channel_aint8_asym"),
        quantizer=Choice.parse("gptq"),
        n_search_sequences=8,
        n_trials=6,
        n_finalists=2,
        pinned="int8_channel",
        dtype="float32",
        device="cpu",
    )
    best = run_study(study, tmp_path / "results").best("kl", bytes=90e3)
    assert len(set(best.allocation.formats.values())) > 1
    assert best.values["label_error"] < 0.4
    export_checkpoint(study, best, tmp_path / "packed", results=tmp_path / "results")
    packed = load_exported(tmp_path / "packed", torch.float32, "cpu")
    assert not any(isinstance(module, torch.nn.Conv2d) for module in packed.modules())
    by_size = [m for m in packed.modules() if isinstance(m, QuantConv2d) and m.pads_by_size]
    assert {m.groups > 1 for m in by_size} == {False, True}
    assert sum(stored_bytes(tmp_path / "packed").values()) == best.values["bytes"]
    assert verify(tmp_path / "packed").differences == ()


@pytest.mark.parametrize("size", [(8, 8), (9, 8), (7, 11)])
@pytest.mark.parametrize("taps", [3, 5, (3, 2)])
@pytest.mark.parametrize("n_groups", [1, 6])
def test_a_convolution_that_pads_by_size_is_its_matrix(size, taps, n_groups):
    torch.manual_seed(0)
    module = Conv2dSame(6, 6, taps, stride=2, groups=n_groups, bias=False).requires_grad_(False)
    inputs, matrix = torch.randn(2, 6, *size), as_matrix(module, module.weight)
    expected = module(inputs)
    torch.testing.assert_close(outputs_with(module, inputs, matrix), expected)
    rows = products(input_rows(module, inputs), matrix)
    torch.testing.assert_close(rows, output_rows(module, expected), rtol=1e-4, atol=1e-5)
    format = named("int8_channel")
    packed = packed_like(module, format)
    packed.load_state_dict(Rtn().quantize(matrix, format).tensors(), strict=False)
    module.weight.copy_(packed.matrix(torch.float32).reshape(module.weight.shape))
    torch.testing.assert_close(packed(inputs), module(inputs))


@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_vit", "test_resnet"])
def test_layers_and_blocks_of_other_families(architecture):
    model = untrained(architecture, **({"img_size": 32} if "vit" in architecture else {}))
    layers = find_layers(model)
    assert {layer.block for layer in layers} == {-1, *range(len(blocks(model)))}
    searched = sum(layer.n_weights for layer in layers)
    matrices = [p for name, p in model.named_parameters() if name.endswith("weight") and p.ndim > 1]
    assert searched + find_pinned(model)[0].n_weights == sum(p.numel() for p in matrices)


def test_weights_used_without_their_module_are_no_layers():
    """BEiT gives its q, k and v a bias of its own: nothing could round or see their inputs."""
    small = {"img_size": 32, "depth": 2, "embed_dim": 32, "num_heads": 2}
    layers = find_layers(untrained("beit_base_patch16_224", **small))
    names = {layer.name.rpartition(".")[2] for layer in layers}
    assert names >= {"fc1", "fc2"}
    assert "qkv" not in names
    assert all(layer.positions > 0 for layer in layers)


def test_what_timm_itself_writes_is_the_same_model(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    for name in ("model_type", "architectures"):
        del config[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name.removeprefix("timm_model."): x for name, x in weights.items()},
        tmp_path / "model.safetensors",
    )
    ours, theirs = (load_model(str(x), dtype="float32", device="cpu") for x in (folder, tmp_path))
    sample = IMAGES.probe(ours.module)
    assert sample.shape == (1, 3, 32, 32)
    with torch.no_grad():
        # Copies: sums depend on how weights lie in memory, and those of a file lie anyhow.
        ours, theirs = (copy.deepcopy(x.module) for x in (ours, theirs))
        assert torch.equal(*(IMAGES.outputs(x, sample + 0.5) for x in (ours, theirs)))
