"""Checkpoints of convolutional models."""

import pytest
import torch
from transformers import AutoModelForImageClassification

from bitfront import formats
from bitfront.errors import InvalidModel
from bitfront.export import EXPORTERS
from bitfront.models.quant_linear import QuantConv2d, keep_decoded
from tests import cases
from tests.export.exports import Export, logits, relative_error, stored_bytes
from tests.models.test_convolutions import resnet

MENU = ("int3_channel", "bf16", "int4_channel_sym", "lut3_channel", "int2_channel_had", "fp8_e4m3")
PLAIN = ("fake_quant", "packed")


@pytest.fixture(params=["efficientnet", "resnet"])
def export(request, tiny_convnet, tiny_tokenizer):
    """The tokenizer stands where the image processor does: a thing that saves itself."""
    torch.manual_seed(0)
    model = tiny_convnet if request.param == "efficientnet" else resnet().eval()
    menu = tuple(map(formats.named, MENU))
    return Export.of(model, tiny_tokenizer, menu, formats.named("int8_channel"))


@pytest.mark.parametrize("exporter", PLAIN)
def test_a_checkpoint_loads_and_answers_as_the_patched_model(exporter, export, tmp_path):
    e, pixels = export, torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    EXPORTERS.build(exporter).write(e.model, e.allocation, e.bank, tmp_path / "out")
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "out", dtype=torch.float32)
    expected = logits(e.expected(), pixels)
    assert relative_error(logits(loaded, pixels), expected) <= cases.EXPORTERS[exporter].error
    norms = {n: b for n, b in e.model.module.named_buffers() if n.endswith("running_var")}
    assert norms  # in float32, where parameters are rounded
    for name, variance in norms.items():
        assert torch.equal(loaded.get_buffer(name), variance)
    if exporter == "packed":
        packed = [m for m in loaded.modules() if isinstance(m, QuantConv2d)]
        assert packed
        keep_decoded(loaded)
        assert torch.equal(logits(loaded, pixels), expected)
        predicted = e.space.outside_bytes + sum(
            formats.named(e.allocation.formats[x.name]).nbytes(x.shape) for x in e.space.layers
        )
        assert sum(stored_bytes(tmp_path / "out").values()) == predicted


@pytest.mark.parametrize("exporter", sorted(set(EXPORTERS.names()) - set(PLAIN)))
def test_what_knows_linear_layers_only_refuses_in_one_line(exporter, export, tmp_path):
    e = export
    with pytest.raises(InvalidModel) as refused:
        EXPORTERS.build(exporter).write(e.model, e.allocation, e.bank, tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
