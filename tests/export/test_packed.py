"""The packed checkpoint: exact bytes and values in every format, and how transformers meets it."""

import copy
import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

from bitfront import formats
from bitfront.errors import InvalidModel
from bitfront.export import EXPORTERS
from bitfront.kernels._blocks import has_kernel
from bitfront.models.quant_linear import QuantEmbedding, QuantLinear, keep_decoded, packed_like
from bitfront.quantizers.rtn import Rtn
from tests.export.exports import Export, stored_bytes
from tests.models.test_layers import OUTSIDE, build

# Without the format of no bits, which only offsets to a base have.
CATALOGUE = {name: f for name, f in formats.catalogue().items() if f.num_bits}


@pytest.fixture(scope="module")
def every_format(tiny_tokenizer, tmp_path_factory):
    """One checkpoint whose layers take every format of the catalogue in turn."""
    torch.manual_seed(0)
    module = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=160,
            hidden_size=256,
            intermediate_size=256,
            num_hidden_layers=-(-len(CATALOGUE) // 7),
            num_attention_heads=4,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    e = Export.of(
        module, tiny_tokenizer, tuple(CATALOGUE.values()), formats.named("int8_g128"), tied=False
    )
    folder = tmp_path_factory.mktemp("every") / "out"
    EXPORTERS.build("packed").write(e.model, e.allocation, e.bank, folder)
    return e, folder


def test_bytes_are_those_predicted_for_every_format(every_format):
    e, folder = every_format
    written = stored_bytes(folder)
    assert set(e.allocation.formats.values()) == set(CATALOGUE)
    shapes = {x.name: x.shape for x in (*e.space.layers, *(p for p, _ in e.space.pinned))}
    for layer, format in e.allocation.formats.items():
        in_file = sum(n for name, n in written.items() if name.rpartition(".")[0] == layer)
        assert in_file == CATALOGUE[format].nbytes(shapes[layer]), format
    predicted = e.space.outside_bytes + sum(
        CATALOGUE[e.allocation.formats[x.name]].nbytes(x.shape) for x in e.space.layers
    )
    assert sum(written.values()) == predicted


def test_every_format_loads_to_the_values_it_was_made_with(every_format):
    e, folder = every_format
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for layer, format in e.allocation.formats.items():
        module = loaded.get_submodule(layer)
        weight = module.weight if format == "bf16" else module.matrix(torch.float32)
        assert torch.equal(weight, e.bank.weight(layer, format)), format
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        expected, found = e.expected()(tokens).logits, loaded(tokens).logits
        keep_decoded(loaded)
        assert torch.equal(loaded(tokens).logits, expected)
        # Where a rotation turns the inputs instead of the weight, sums round otherwise, and on some
        # processors an input that is rounded goes a step further: later tokens see it.
        near = torch.isclose(found, expected, rtol=1e-4, atol=1e-5).all(dim=-1)[0]
        assert near[:10].all()
        torch.testing.assert_close(found, expected, rtol=0, atol=0.01 * float(expected.std()))


def test_every_format_multiplies_as_its_decoded_weight_does(every_format):
    """Inputs as they are: rounded, they would be a step apart wherever sums round otherwise."""
    e, folder = every_format
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for module in loaded.modules():
        if isinstance(module, QuantLinear):
            module.format = formats.named(e.bank.stored_as(module.format.name))
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        expected = e.expected(rounds_inputs=False)(tokens).logits
        # Where a rotation turns the inputs instead of the weight, sums round otherwise.
        torch.testing.assert_close(loaded(tokens).logits, expected, rtol=1e-4, atol=1e-5)


def test_layers_that_read_one_tensor_are_loaded_as_siblings(every_format, tmp_path):
    """In all formats of one block, packed; a folder that says nothing of them loads too."""
    e, folder = every_format
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    joined = {}
    for name, module in loaded.named_modules():
        if getattr(module, "siblings", None) is not None:
            joined.setdefault(id(module.siblings), []).append(name)
    expected = []
    for index in range(loaded.config.num_hidden_layers):
        block = f"model.layers.{index}"
        for parent, names in (("self_attn", "qkv"), ("mlp", ("gate", "up"))):
            layers = [f"{block}.{parent}.{name}_proj" for name in names]
            layers = [x for x in layers if has_kernel(CATALOGUE[e.allocation.formats[x]])]
            expected += [layers] if len(layers) > 1 else []
    assert sorted(map(sorted, joined.values())) == sorted(map(sorted, expected))
    silent = shutil.copytree(folder, tmp_path / "silent")
    config = json.loads((silent / "config.json").read_text())
    assert config["quantization_config"].pop("siblings")
    (silent / "config.json").write_text(json.dumps(config))
    again = AutoModelForCausalLM.from_pretrained(silent, dtype=torch.float32)
    assert all(getattr(module, "siblings", None) is None for module in again.modules())


LAYER = "model.layers.0.mlp.up_proj"
DAMAGED_CONFIGS = {
    "no formats": (lambda c: c.pop("formats"), "must have the name of a format for each"),
    "a list": (lambda c: c.update(formats=["int4_g64"]), "must have the name of a format for each"),
    "no name": (lambda c: c["formats"].update({LAYER: None}), "must have the name of a format"),
    "no such layer": (lambda c: c["formats"].update(x="int4_g64"), "'x', which LlamaForCausalLM l"),
    "no such sibling": (lambda c: c.update(siblings=[["x", "y"]]), "'x', which LlamaForCausalLM"),
    "another format": (lambda c: c["formats"].update({LAYER: "int8_g32"}), f"lacks {LAYER}.codes"),
}


@pytest.mark.parametrize("damage", DAMAGED_CONFIGS)
def test_a_damaged_configuration_is_refused_in_one_line(damage, tiny_export, tmp_path):
    e = tiny_export
    EXPORTERS.build("packed").write(e.model, e.allocation, e.bank, tmp_path / "out")
    change, said = DAMAGED_CONFIGS[damage]
    path = tmp_path / "out" / "config.json"
    config = json.loads(path.read_text())
    change(config["quantization_config"])
    path.write_text(json.dumps(config))
    with pytest.raises(InvalidModel, match=said):
        AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_another_class_is_told_which_one_to_take(tiny_export, tmp_path):
    e = tiny_export
    EXPORTERS.build("packed").write(e.model, e.allocation, e.bank, tmp_path / "out")
    with pytest.raises(InvalidModel, match="LlamaModel lacks: load it as LlamaForCausalLM"):
        AutoModel.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("of", ["packed", "bf16"])
@pytest.mark.parametrize("damage", ["lacks", "has"])
def test_missing_tensors_and_other_shapes_are_refused_by_name(of, damage, tiny_export, tmp_path):
    """transformers would go on with tensors that nobody wrote."""
    e = tiny_export
    EXPORTERS.build("packed").write(e.model, e.allocation, e.bank, tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    layer = next(x for x, f in e.allocation.formats.items() if (f == "bf16") == (of == "bf16"))
    tensors = load_file(path)
    name = next(name for name in tensors if name.startswith(layer))
    tensor = tensors.pop(name)
    if damage == "has":
        tensors[name] = tensor[:-1].contiguous()
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(InvalidModel, match=f"The checkpoint {damage} .*{name}, a tensor of shape"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("family", OUTSIDE)
def test_layers_outside_the_blocks_are_packed_like_others(family, tiny_tokenizer, tmp_path):
    module = build(family)
    e = Export.of(module, tiny_tokenizer, (CATALOGUE["int4_channel"],), CATALOGUE["int8_channel"])
    EXPORTERS.build("packed").write(e.model, e.allocation, e.bank, tmp_path / "out")
    written = stored_bytes(tmp_path / "out")
    nbytes = {x.name: CATALOGUE["int4_channel"].nbytes(x.shape) for x in e.space.layers}
    assert sum(written.values()) == e.space.outside_bytes + sum(nbytes.values())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    for layer in OUTSIDE[family]:
        in_file = {k: n for k, n in written.items() if k.rpartition(".")[0] == layer}
        assert sum(in_file.values()) - in_file.get(f"{layer}.bias", 0) == nbytes[layer]
        assert isinstance(loaded.get_submodule(layer), QuantLinear)
        matrix = loaded.get_submodule(layer).matrix(torch.float32)
        assert torch.equal(matrix, e.bank.weight(layer, "int4_channel"))
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, e.expected()(tokens).logits)


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name != "bf16"])
def test_rows_of_a_packed_table_are_those_of_the_whole(name):
    weight = torch.randn(40, 256, generator=torch.Generator().manual_seed(0))
    table = QuantEmbedding(CATALOGUE[name], (40, 256), torch.float32)
    quantized = Rtn(clip_steps=0).quantize(weight, CATALOGUE[name])
    table.load_state_dict(quantized.tensors())
    ids = torch.tensor([[3, 39, 3], [0, 7, 20]])
    assert torch.equal(table(ids), quantized.dequantize()[ids])
    assert table(ids[:, :0]).shape == (2, 0, 256)  # as `nn.Embedding` has it


@pytest.mark.parametrize(
    "name", ["int8_g32", "int3_g64", "nf4_g64", "mxfp8_e4m3", "nvint4", "fp8_e4m3"]
)
def test_a_gpu_finds_the_same_rows_without_waiting(name, monkeypatch):
    """Interpreted here; `unique` is what would wait."""
    weight = torch.randn(40, 128, generator=torch.Generator().manual_seed(0))
    table = QuantEmbedding(CATALOGUE[name], (40, 128), torch.float32, factor=2.0)
    quantized = Rtn(clip_steps=0).quantize(weight, CATALOGUE[name])
    table.load_state_dict(quantized.tensors())
    ids = torch.tensor([[3, 39, 3], [0, 7, 20]])
    monkeypatch.setattr("bitfront.models.quant_linear.on_gpu", lambda tensor: True)
    monkeypatch.setattr("bitfront.kernels.dequant_matmul.can_run_triton", lambda device: True)
    monkeypatch.setattr(torch.Tensor, "unique", None)
    assert torch.equal(table(ids), 2 * quantized.dequantize()[ids])


@pytest.fixture
def linear():
    format = formats.named("int4_g64")
    layer = QuantLinear(format, (32, 64), torch.float32, torch.nn.Parameter(torch.ones(32)))
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    layer.load_state_dict(Rtn().quantize(weight, format).tensors() | {"bias": torch.ones(32)})
    return layer


def test_casting_the_model_keeps_the_stored_tensors(linear):
    before = linear.matrix(torch.float32)
    linear.to(torch.bfloat16).to(torch.float32)
    assert linear.bias.dtype == torch.float32
    assert torch.equal(linear.matrix(torch.float32), before)


def test_decoded_weights_are_kept_on_request_only(linear):
    inputs = torch.randn(2, 64)
    fresh = linear(inputs)
    assert linear._kept is None
    keep_decoded(linear)
    assert torch.equal(linear(inputs), fresh)
    assert linear._kept is not None
    assert linear.matrix(torch.float32) is linear._kept
    assert linear(inputs.bfloat16().to(torch.bfloat16).float()).dtype == torch.float32
    keep_decoded(linear, keep=False)
    assert linear._kept is None


def test_a_copy_of_a_tied_model_shares_its_own_table(tiny_export, tmp_path):
    e = tiny_export
    EXPORTERS.build("packed").write(e.model, e.allocation, e.bank, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    copied = copy.deepcopy(loaded)
    assert copied.lm_head._embedding[0] is copied.model.embed_tokens
    assert len([name for name in copied.state_dict() if "codes_8bit" in name]) == 1


def test_an_unknown_kind_of_embedding_is_refused():
    class Normed(torch.nn.Embedding):
        def forward(self, ids):
            return super().forward(ids).softmax(-1)

    with pytest.raises(InvalidModel, match="Normed cannot hold packed weights"):
        packed_like(Normed(4, 64), formats.named("int8_g64"))
    scaled = Gemma3TextScaledWordEmbedding(4, 64, padding_idx=0, embed_scale=8.0)
    assert packed_like(scaled, formats.named("int8_g64")).factor == 8.0


def test_registration_in_every_import_order():
    code = """
import sys

def registered():
    from transformers.quantizers import auto
    table = auto.AUTO_QUANTIZER_MAPPING, auto.AUTO_QUANTIZATION_CONFIG_MAPPING
    for name in [n for n in sys.modules if n.startswith(("bitfront", "transformers.quantizers"))]:
        del sys.modules[name]
    return [each["bitfront"].__name__ for each in table] == ["BitfrontQuantizer", "BitfrontConfig"]

import bitfront
assert "torch" not in sys.modules and "transformers" not in sys.modules
assert registered(), "bitfront first"
import transformers.quantizers.auto
import bitfront
assert registered(), "transformers first"
import bitfront.models.packed_checkpoint
assert registered(), "the registered module first"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=280)


@pytest.fixture(scope="module")
def wide(tiny_tokenizer, tmp_path_factory):
    """A checkpoint of 38 million weights at 2 bits, and the same in bfloat16: 76 MB."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 4}
    config = LlamaConfig(vocab_size=512, num_attention_heads=8, tie_word_embeddings=True, **sizes)
    module = LlamaForCausalLM(config).eval()
    e = Export.of(module, tiny_tokenizer, (CATALOGUE["int2_g64"],), CATALOGUE["int4_g64"])
    folder = tmp_path_factory.mktemp("wide")
    for exporter in ("packed", "fake_quant"):
        EXPORTERS.build(exporter).write(e.model, e.allocation, e.bank, folder / exporter)
    return folder


def test_loading_never_builds_the_full_precision_model(wide):
    code = """
import re, sys
import torch, bitfront
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaForCausalLM

class Largest(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(each, torch.Tensor) and each.is_floating_point():
                if each.device.type != "meta":
                    self.numel = max(self.numel, each.numel())
        return made

def kilobytes(what):
    with open("/proc/self/status") as file:
        return int(re.search(what + r":\\s+(\\d+)", file.read())[1])

for folder in sys.argv[1:]:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak is what there is now
    before = kilobytes("VmRSS")
    with Largest() as largest:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    print(largest.numel, kilobytes("VmHWM") - before)
    del model
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(wide / "packed"), str(wide / "fake_quant")],
        check=True,
        timeout=280,
        capture_output=True,
        text=True,
    )
    (largest, packed), (_, plain) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert largest < 1024 * 1024  # of the smallest matrix: none was decoded
    stored = sum(stored_bytes(wide / "packed").values()) / 1024
    assert packed < 2.5 * stored < 0.5 * plain
