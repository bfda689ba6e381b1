"""Recipes: each tool that can be installed here reads its own, and does what it says."""

import json
import re
import subprocess
import sys

import pytest
from compressed_tensors.quantization import QuantizationScheme

from bitfront import formats
from bitfront.errors import InvalidArgument
from bitfront.export import EXPORTERS
from tests import cases
from tests.export.exports import Export

RECIPES = [name for name, claim in cases.EXPORTERS.items() if isinstance(claim, cases.Recipe)]
MENUS = {
    "auto_round": ("int2_g64_sym", "int3_channel", "int4_g16", "mxfp4", "nvfp4", "bf16"),
    "gptqmodel": ("int2_g64_sym", "int3_channel", "int4_g16", "int8_g64", "bf16"),
    "llm_compressor": ("int2_g64_sym", "int3_channel", "fp8_e4m3", "mxfp4", "nvfp4", "bf16"),
    "modelopt": ("int2_g64_sym", "int3_channel_sym", "fp8_e4m3", "mxfp4", "nvfp4", "bf16"),
}


@pytest.fixture
def written(tiny_llama, tiny_tokenizer, tmp_path):
    """Writes the recipe of a tool: formats of the searched layers, and its text."""

    def write(tool, **params):
        menu = tuple(map(formats.named, MENUS[tool]))
        e = Export.of(tiny_llama, tiny_tokenizer, menu, formats.named("int8_g64"), tied=False)
        EXPORTERS.build(tool, params).write(e.model, e.allocation, e.bank, tmp_path / tool)
        searched = {x.name: e.allocation.formats[x.name] for x in e.space.layers}
        assert set(searched.values()) == set(MENUS[tool])
        return searched, (tmp_path / tool / cases.EXPORTERS[tool].file).read_text()

    return write


def run(code, folder, model):
    """What a script prints last, as JSON; `folder` is where it works, since tools leave files."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(model)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_auto_round_quantizes_by_its_recipe(written, tiny_folder, tmp_path):
    searched, _ = written("auto_round")
    code = """
import json, sys
from auto_round import AutoRound
from transformers import AutoTokenizer, LlamaForCausalLM

model = LlamaForCausalLM.from_pretrained(sys.argv[1]).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
with open("auto_round/layer_config.json") as file:
    asked = json.load(file)
options = {"iters": 0, "seqlen": 32, "nsamples": 2, "disable_opt_rtn": True}
made, used = AutoRound(model, tokenizer, scheme="W4A16", layer_config=asked, **options).quantize()
rows = {name: made.get_submodule(name).weight[0] for name in asked}
print(json.dumps({name: [
    [used[name][key] for key in ("bits", "group_size", "sym", "data_type", "act_bits")],
    max(len(group.unique()) for group in rows[name].split(16)),
] for name in asked}))
"""
    made = run(code, tmp_path, tiny_folder)
    assert set(made) == set(searched)
    words = {
        "int2_g64_sym": [2, 64, True, "int", 16],
        "int3_channel": [3, -1, False, "int", 16],
        "int4_g16": [4, 16, False, "int", 16],
        "mxfp4": [4, 32, True, "mx_fp", 16],
        "nvfp4": [4, 16, True, "nv_fp", 16],
    }
    for layer, (used, n_numbers) in made.items():
        name = searched[layer]
        if name == "bf16":
            assert used[0] == 16
        else:
            assert used == words[name]
            assert n_numbers <= 2 ** formats.named(name).num_bits


def test_model_optimizer_quantizes_by_its_recipe(written, tiny_folder, tmp_path):
    searched, _ = written("modelopt")
    code = """
import json, sys
import torch, yaml
import modelopt.torch.quantization as mtq
from transformers import LlamaForCausalLM

model = LlamaForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
with open("modelopt/quantize.yaml") as file:
    made = mtq.quantize(model, yaml.safe_load(file), lambda m: m(torch.arange(32)[None]))
found = {}
for name, quantizer in made.named_modules():
    if name.endswith("_quantizer") and quantizer.is_enabled:
        layer = name.removesuffix(".weight_quantizer")
        used = [quantizer.num_bits, quantizer.block_sizes and quantizer.block_sizes[-1]]
        if quantizer.num_bits == (2, 1):  # computed on CUDA only
            found[layer] = [*used, 0]
        else:
            rounded = quantizer(made.get_submodule(layer).weight)
            found[layer] = [*used, len(rounded[0, :16].unique())]
print(json.dumps(found))
"""
    made = run(code, tmp_path, tiny_folder)
    words = {
        "int2_g64_sym": [2, 64],
        "int3_channel_sym": [3, None],
        "fp8_e4m3": [[4, 3], None],
        "mxfp4": [[2, 1], 32],
        "nvfp4": [[2, 1], 16],
    }
    quantized = {layer: words[name] for layer, name in searched.items() if name != "bf16"}
    assert {layer: used for layer, (*used, _) in made.items()} == quantized
    for layer, (*_, n_numbers) in made.items():
        assert n_numbers <= 2 ** formats.named(searched[layer]).num_bits


def test_the_groups_of_llm_compressor_are_those_of_compressed_tensors(written):
    searched, text = written("llm_compressor")
    ((modifier, fields),) = json.loads(text)["quantize_stage"]["quantize_modifiers"].items()
    assert modifier == "GPTQModifier"
    schemes = {n: QuantizationScheme.model_validate(g) for n, g in fields["config_groups"].items()}
    found = {layer: name for name, scheme in schemes.items() for layer in scheme.targets}
    assert found == {layer: name for layer, name in searched.items() if name != "bf16"}
    _, text = written("llm_compressor", modifier="QuantizationModifier")
    assert "QuantizationModifier" in text
    with pytest.raises(InvalidArgument, match="modifier is 'AwqModifier': give one of"):
        EXPORTERS.build("llm_compressor", {"modifier": "AwqModifier"})


def test_one_rule_of_gptqmodel_matches_each_layer(written):
    # its own `QuantizeConfig.dynamic_get`: the first rule that matches, "-:" for none, else base
    searched, text = written("gptqmodel")
    config = json.loads(text)
    rules = {p[2:]: (p[0], overrides) for p, overrides in config["dynamic"].items()}
    for layer, name in searched.items():
        matching = [rule for pattern, rule in rules.items() if re.match(pattern, layer)]
        assert len(matching) <= 1
        sign, overrides = matching[0] if matching else ("+", {})
        assert (sign == "-") == (name == "bf16")
        used = {k: overrides.get(k, config[k]) for k in ("bits", "group_size", "sym")}
        format = formats.named(name)
        if name != "bf16":
            assert used == {
                "bits": format.num_bits,
                "group_size": format.group_size or -1,
                "sym": format.symmetric,
            }
    assert not config["lm_head"]


@pytest.mark.parametrize("tool", RECIPES)
def test_formats_that_a_tool_lacks_are_refused_in_one_line(
    tool, tiny_llama, tiny_tokenizer, tmp_path
):
    e = Export.of(tiny_llama, tiny_tokenizer, (formats.named("nf4_g64"),), None)
    with pytest.raises(InvalidArgument, match=r"has nf4_g64, which .* does not know") as refused:
        EXPORTERS.build(tool).write(e.model, e.allocation, e.bank, tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []
