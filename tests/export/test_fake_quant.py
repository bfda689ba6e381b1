"""The rounded checkpoint needs nothing of bitfront."""

import json

import pytest
import torch
from safetensors.torch import load_file

from bitfront import formats
from bitfront.export import EXPORTERS
from tests.export.exports import Export
from tests.models.test_layers import build


def test_it_is_a_plain_bfloat16_folder(tiny_export, tmp_path):
    e = tiny_export
    EXPORTERS.build("fake_quant").write(e.model, e.allocation, e.bank, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.bfloat16}
    assert set(tensors) == set(e.model.module.state_dict()) - {"lm_head.weight"}
    for layer, format in e.allocation.formats.items():
        assert torch.equal(tensors[f"{layer}.weight"], e.bank.weight(layer, format).bfloat16())


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "gpt_neox"])
def test_names_are_those_of_published_checkpoints(family, tiny_tokenizer, tmp_path):
    module = build(family)
    e = Export.of(module, tiny_tokenizer, (formats.named("int4_channel_sym"),), None)
    EXPORTERS.build("fake_quant").write(e.model, e.allocation, e.bank, tmp_path / "out")
    module.save_pretrained(tmp_path / "published")
    published = load_file(tmp_path / "published" / "model.safetensors")
    written = load_file(tmp_path / "out" / "model.safetensors")
    quantized = tuple(f"{layer}.weight" for layer in e.allocation.formats)
    rest = {name for name in published if not name.startswith(quantized)}
    assert {name for name in written if not name.startswith(quantized)} == rest
    assert all(torch.equal(written[name], published[name].bfloat16()) for name in rest)
