"""The rounded checkpoint needs nothing of bitfront."""

import json

import torch
from safetensors.torch import load_file

from bitfront.export import EXPORTERS


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
