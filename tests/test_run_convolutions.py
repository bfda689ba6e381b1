"""A whole study of a convolutional model, from the command line to a verified checkpoint."""

import pytest
import torch
from transformers import AutoModelForImageClassification

from bitfront.models.quant_linear import QuantConv2d
from bitfront.proof.verify import verify
from bitfront.results import Results
from tests.cli.commands import bitfront

MENU = "int2_channel,int4_channel,int8_channel"


@pytest.fixture(scope="module")
def searched(convnet_folder, digit_files, tmp_path_factory):
    """Results folder and packed checkpoint of a search within bit operations and bytes."""
    out = tmp_path_factory.mktemp("searched")
    images = f"--calibration {digit_files}/calibration --evaluation {digit_files}/evaluation"
    sizes = "--n-sequences 6 --n-search-sequences 12 --n-evaluation-sequences 30"
    limits = "--budget 0.03Gbops --budget 30KB --costs memory,bops:activation_bits=8"
    others = "--quantizer gptq --n-trials 6 --n-finalists 2 --dtype float32 --device cpu"
    options = f"--formats {MENU} --pin int8_channel {images} {sizes} {limits} {others}".split()
    folders = ["--out", str(out / "results"), "--checkpoint", str(out / "checkpoint")]
    process = bitfront("search", str(convnet_folder), *options, *folders)
    assert process.returncode == 0, process.stderr
    return out / "results", out / "checkpoint"


def test_the_answer_meets_both_limits_and_beats_two_bits(searched):
    results = Results(searched[0])
    front = results.front()
    best = front.best("kl", bops=30e6, bytes=30e3)
    assert best.values["bops"] <= 30e6
    assert best.values["bytes"] <= 30e3
    stem = "efficientnet.embeddings.convolution"
    assert len(set(best.allocation.formats.values())) > 1
    uniform = [t for t in results.trials("evaluation") if t.origin == "uniform"]
    narrow = next(t for t in uniform if t.allocation.formats[stem] == "int2_channel")
    assert best.values["kl"] < narrow.values["kl"]
    eight = next(t for t in uniform if t.allocation.formats[stem] == "int8_channel")
    products = sum(x.n_weights * x.positions for x in results.space.layers)
    assert eight.values["bops"] == 8 * 8 * products
    assert eight.values["label_error"] < 0.15


def test_the_checkpoint_holds_packed_convolutions_and_is_what_was_measured(searched):
    _, checkpoint = searched
    loaded = AutoModelForImageClassification.from_pretrained(checkpoint, dtype=torch.float32)
    assert any(isinstance(m, QuantConv2d) and m.groups > 1 for m in loaded.modules())
    assert not any(type(m) is torch.nn.Conv2d for m in loaded.modules())
    assert verify(checkpoint).differences == ()
