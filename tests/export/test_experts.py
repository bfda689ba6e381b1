"""Checkpoints of models whose experts have formats of their own."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bitfront import formats
from bitfront.errors import InvalidModel
from bitfront.export import EXPORTERS
from bitfront.models.experts import SeparateExperts, separate_experts
from bitfront.models.quant_linear import QuantLinear
from tests.export.exports import Export, load, logits, relative_error, stored_bytes
from tests.models.test_experts import FAMILIES, build, tokens

MENU = tuple(map(formats.named, ("int4_channel_sym", "int3_channel", "bf16")))


@pytest.fixture
def exported(tiny_tokenizer):
    """Makes what is exported of a family; neighbouring experts have different formats."""

    def make(family):
        model = build(family)
        separate_experts(model)
        return Export.of(model, tiny_tokenizer, MENU, formats.named("int8_g64_sym"))

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_experts_load_and_compute_what_was_measured(family, exported, tmp_path):
    e = exported(family)
    EXPORTERS.build("packed").write(e.model, e.allocation, e.bank, tmp_path / "out")
    sizes = (formats.named(e.allocation.formats[x.name]).nbytes(x.shape) for x in e.space.layers)
    assert sum(stored_bytes(tmp_path / "out").values()) == e.space.outside_bytes + sum(sizes)
    loaded, found = load("packed", tmp_path / "out", dtype=torch.float32, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert not found["mismatched_keys"]
    assert relative_error(logits(loaded, tokens()), logits(e.expected(), tokens())) < 1e-6
    routed = [x.name for x in e.space.layers if x.active < 1]
    kinds = {e.allocation.formats[name] for name in routed}
    assert kinds == {"int4_channel_sym", "int3_channel", "bf16"}
    for name in routed:
        is_packed = isinstance(loaded.get_submodule(name), QuantLinear)
        assert is_packed == (e.allocation.formats[name] != "bf16")
    assert loaded.generate(tokens()[:1, :4], max_new_tokens=3, do_sample=False).shape == (1, 7)


@pytest.mark.parametrize("family", FAMILIES)
def test_fake_quant_is_a_published_checkpoint_with_the_values_of_the_formats(
    family, exported, tmp_path
):
    e = exported(family)
    EXPORTERS.build("fake_quant").write(e.model, e.allocation, e.bank, tmp_path / "out")
    loaded, found = load(
        "fake_quant", tmp_path / "out", dtype=torch.float32, output_loading_info=True
    )
    assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys"))
    assert not any(isinstance(m, SeparateExperts) for m in loaded.modules())
    separate_experts(loaded)
    state = loaded.state_dict()
    for layer, format in e.allocation.formats.items():
        assert torch.equal(
            state[f"{layer}.weight"], e.bank.weight(layer, format).bfloat16().float()
        )
    names = stored_bytes(tmp_path / "out")
    published = {"mixtral": "experts.3.w1.weight", "gpt_oss": "experts.gate_up_proj_bias"}
    assert any(published.get(family, "experts.3.gate_proj.weight") in name for name in names)


@pytest.mark.parametrize(
    "exporter",
    ["auto_round", "compressed_tensors", "gguf", "gptqmodel", "llm_compressor", "modelopt"],
)
def test_tools_that_cannot_name_one_expert_are_refused_in_one_line(exporter, exported, tmp_path):
    e = exported("qwen3_moe")
    e = Export.of(e.model.module, e.model.tokenizer, MENU[:1], None)
    with pytest.raises(InvalidModel, match="packed or fake_quant") as refused:
        EXPORTERS.build(exporter).write(e.model, e.allocation, e.bank, tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_with_stacked_experts_at_16_bits_still_loads(tiny_tokenizer, tmp_path):
    """`--experts none`, and checkpoints from before experts had layers."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("qwen3_moe", **FAMILIES["qwen3_moe"][0])
    model = AutoModelForCausalLM.from_config(config).eval()
    e = Export.of(model, tiny_tokenizer, MENU, None)
    EXPORTERS.build("packed").write(e.model, e.allocation, e.bank, tmp_path / "out")
    loaded = load("packed", tmp_path / "out", dtype=torch.float32)
    assert not any(isinstance(m, SeparateExperts) for m in loaded.modules())
    assert relative_error(logits(loaded, tokens()), logits(e.expected(), tokens())) < 1e-6
