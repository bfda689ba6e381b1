"""Checkpoints of models whose experts have formats of their own."""

import json
import re
from dataclasses import replace

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, CompressedTensorsConfig

from bitfront import formats, runtimes
from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument, InvalidModel
from bitfront.export import EXPORTERS
from bitfront.models.experts import SeparateExperts, separate_experts
from bitfront.models.fixed import FixedTensors
from bitfront.models.layers import get_weight, search_space
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
    ["auto_round", "gguf", "gptqmodel", "llm_compressor", "modelopt"],
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


@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v3", "gpt_oss"])
@pytest.mark.parametrize("separate", [True, False], ids=["separate", "stacked"])
def test_tensors_without_a_format_are_measured_as_the_checkpoint_stores_them(
    family, separate, tiny_tokenizer, tmp_path
):
    model = build(family)
    with torch.no_grad():
        for tensor in model.state_dict().values():  # zeros and ones would not change
            tensor.add_(torch.rand_like(tensor) / 50)
    if separate:
        separate_experts(model)
    e = Export.of(model, tiny_tokenizer, MENU, formats.named("int8_g64_sym"))
    EXPORTERS.build("packed").write(e.model, e.allocation, e.bank, tmp_path / "out")
    stored = load("packed", tmp_path / "out", dtype=torch.float32).state_dict()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fixed = FixedTensors(model, e.space)
    fixed.round()
    rounded = {x for x, t in model.state_dict().items() if not torch.equal(t, before[x])}
    of_layers = {f"{x}.weight" for x in e.allocation.formats}
    assert not rounded & of_layers
    assert any(x.endswith("norm.weight") for x in rounded)
    assert any(re.search(r"experts\.(gate_)?up_proj$", x) for x in rounded) != separate
    assert any("experts.0." in x for x in rounded) == (separate and family == "gpt_oss")  # biases
    for name in before.keys() - of_layers:
        assert torch.equal(model.state_dict()[name], stored[name]), name
    fixed.restore()
    assert all(torch.equal(t, before[x]) for x, t in model.state_dict().items())


UNIFORM = ("int4_channel_sym", "int8_channel_sym")


def with_blocks(e, formats_of_blocks):
    """Every layer of a block in the format of its block."""
    by_name = {x.name: formats_of_blocks[x.block % len(formats_of_blocks)] for x in e.space.layers}
    return replace(e, allocation=Allocation(by_name))


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3"])
def test_compressed_experts_are_stored_one_by_one_as_published(family, exported, tmp_path):
    e = with_blocks(exported(family), ("bf16", "nvfp4") if family == "mixtral" else UNIFORM)
    EXPORTERS.build("compressed_tensors").write(e.model, e.allocation, e.bank, tmp_path / "out")
    made = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    config = QuantizationConfig.model_validate(made)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    schemes = {t: g for g in config.config_groups.values() for t in g.targets}
    prefix = {"mixtral": "block_sparse_moe"}.get(family, "mlp")
    names = {"mixtral": ("w1", "w3", "w2")}.get(family, ("gate_proj", "up_proj", "down_proj"))
    n_read = 0
    for layer in (x for x in e.space.layers if x.active < 1):
        weight = e.bank.weight(layer.name, e.allocation.formats[layer.name])
        start, index, kind = layer.name.rsplit(".", 2)
        published = f"{start.replace('mlp', prefix)}.{index}"
        parts = weight.chunk(2) if kind == "gate_up_proj" else (weight,)
        for part, name in zip(parts, names[:2] if len(parts) == 2 else names[2:], strict=True):
            module = f"{published}.{name}"
            state = {k.removeprefix(f"{module}."): t for k, t in stored.items()
                     if k.startswith(f"{module}.")}  # fmt: skip
            found = [s for t, s in schemes.items() if re.match(t.removeprefix("re:"), module)]
            if e.allocation.formats[layer.name] == "bf16":
                assert not found
                assert module in config.ignore
                assert torch.equal(state["weight"], part.bfloat16())
                continue
            (scheme,) = found
            compressor = BaseCompressor.get_value_from_registry(scheme.format)
            decoded = compressor.decompress(state, scheme)["weight"]
            torch.testing.assert_close(decoded, part.to(decoded.dtype), rtol=2**-8, atol=0)
            assert module not in config.ignore
            n_read += 1
    assert n_read
    assert not any(f"{prefix}.experts.0.gate_up_proj" in name for name in stored)


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
def test_transformers_reads_compressed_experts(exported, tmp_path):
    """It decodes them on loading, and knows one scheme for all."""
    e = with_blocks(exported("qwen3_moe"), ("int4_channel_sym",))
    EXPORTERS.build("compressed_tensors").write(e.model, e.allocation, e.bank, tmp_path / "out")
    loaded = load(
        *("compressed_tensors", tmp_path / "out"),
        dtype=torch.float32,
        quantization_config=CompressedTensorsConfig(dequantize=True),
    )
    separate_experts(loaded)
    for layer in e.space.layers:
        expected = e.bank.weight(layer.name, "int4_channel_sym")
        # into float16, whatever is asked for
        found = get_weight(loaded, layer.name).float()
        torch.testing.assert_close(found, expected, rtol=2**-10, atol=1e-6)


def test_experts_of_one_block_that_differ_are_refused(exported, tmp_path):
    e = exported("qwen3_moe")
    e = with_blocks(e, ("int4_channel_sym",))
    name = next(x.name for x in e.space.layers if x.active < 1)
    e = replace(e, allocation=Allocation(e.allocation.formats | {name: "int3_channel_sym"}))
    with pytest.raises(InvalidArgument, match="search with --experts block") as refused:
        EXPORTERS.build("compressed_tensors").write(e.model, e.allocation, e.bank, tmp_path / "o")
    assert "\n" not in str(refused.value)
    e = with_blocks(exported("gpt_oss"), ("int4_channel_sym",))
    with pytest.raises(InvalidModel, match="experts in one tensor"):
        EXPORTERS.build("compressed_tensors").write(e.model, e.allocation, e.bank, tmp_path / "o")


def test_vllm_has_one_format_for_all_experts_of_a_block(exported, tmp_path):
    model = exported("qwen3_moe").model.module
    menu = tuple(map(formats.named, ("int3_channel_sym", "int4_channel_sym", "fp8_e4m3", "bf16")))
    space = search_space(model, menu, None, True, runtimes.named("vllm"))
    routed = [row for row, x in enumerate(space.layers) if x.active < 1]
    assert len({space.layers[row].group for row in routed}) == 2
    allowed = {tuple(space.allowed[row]) for row in routed}
    assert allowed == {(False, True, False, True)}
    with pytest.raises(InvalidArgument, match="ranks do not divide"):
        search_space(model, menu, None, True, runtimes.named("vllm", 32))
