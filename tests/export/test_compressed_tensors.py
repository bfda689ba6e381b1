"""The compressed-tensors checkpoint, read by the package of that name and by transformers."""

import json

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.pack_quantized import pack_to_int32
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from bitfront import formats
from bitfront.errors import InvalidArgument
from bitfront.export import EXPORTERS
from bitfront.export.compressed_tensors import _words
from bitfront.formats.int_grouped import IntGrouped
from bitfront.models.layers import set_weight
from tests.export.exports import Export, load, logits, relative_error

CATALOGUE = formats.catalogue()
STORED = tuple(
    name
    for name, f in CATALOGUE.items()
    if name in ("bf16", "fp8_e4m3", "mxfp4", "mxfp6_e2m3", "mxfp8_e4m3", "nvfp4")
    or (isinstance(f, IntGrouped) and f.symmetric)
)


@pytest.fixture(scope="module")
def every_format(tiny_tokenizer, tmp_path_factory):
    """One checkpoint whose layers take every format that can be stored in turn."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 256}
    blocks = {"num_hidden_layers": -(-len(STORED) // 7), "num_attention_heads": 4}
    module = LlamaForCausalLM(LlamaConfig(**sizes, **blocks, tie_word_embeddings=False)).eval()
    menu = tuple(CATALOGUE[name] for name in STORED)
    e = Export.of(module, tiny_tokenizer, menu, formats.named("int8_g128"), tied=False)
    folder = tmp_path_factory.mktemp("every") / "out"
    EXPORTERS.build("compressed_tensors").write(e.model, e.allocation, e.bank, folder)
    return e, folder, {name for name in e.allocation.formats if "layers" in name}


def test_compressed_tensors_reads_every_format_as_it_was_made(every_format):
    e, folder, _ = every_format
    made = json.loads((folder / "config.json").read_text())["quantization_config"]
    config = QuantizationConfig.model_validate(made)
    assert config.format == "mixed-precision"
    assert set(config.config_groups) == set(STORED) - {"bf16"}
    stored = load_file(folder / "model.safetensors")
    for name, scheme in config.config_groups.items():
        for layer in scheme.targets:
            assert e.allocation.formats[layer] == name
            prefix = f"{layer}."
            state = {k.removeprefix(prefix): t for k, t in stored.items() if k.startswith(prefix)}
            compressor = BaseCompressor.get_value_from_registry(scheme.format)
            assert set(state) == set(compressor.compression_param_names(scheme))
            weight = compressor.decompress(state, scheme)["weight"]
            expected = e.bank.weight(layer, name)
            # in the dtype that it decodes to; the reciprocal in nvfp4 costs a last bit
            torch.testing.assert_close(weight, expected.to(weight.dtype), rtol=2**-8, atol=0)
            if name != "nvfp4":
                assert torch.equal(weight, expected.to(weight.dtype)), name
            counted = sum(t.nbytes for k, t in state.items() if k != "weight_shape")
            assert counted == CATALOGUE[name].nbytes(expected.shape), name


@pytest.mark.parametrize("num_bits", range(1, 9))
@pytest.mark.parametrize("n_columns", [1, 7, 32, 33, 100])
def test_codes_are_packed_as_compressed_tensors_packs_them(num_bits, n_columns):
    generator = torch.Generator().manual_seed(num_bits)
    shape = (5, n_columns)
    codes = torch.randint(0, 2**num_bits, shape, dtype=torch.uint8, generator=generator)
    signed = (codes.int() - 2 ** (num_bits - 1)).to(torch.int8)
    assert torch.equal(_words(codes, num_bits), pack_to_int32(signed, num_bits))


def test_all_other_linear_layers_are_left_alone(every_format):
    e, folder, layers = every_format
    made = json.loads((folder / "config.json").read_text())["quantization_config"]
    plain = {name for name in layers if e.allocation.formats[name] == "bf16"}
    assert plain
    assert set(made["ignore"]) == plain | {"lm_head"}
    stored = load_file(folder / "model.safetensors")
    for name in (*plain, "lm_head", "model.embed_tokens"):
        expected = e.bank.weight(name, e.allocation.formats[name])
        assert torch.equal(stored[f"{name}.weight"], expected.bfloat16())


def test_transformers_runs_all_formats_at_once(every_format):
    # it decodes the 4-bit floats in bfloat16 only
    e, folder, _ = every_format
    tokens = torch.arange(40).view(2, 20) * 7
    loaded = load("compressed_tensors", folder, dtype=torch.bfloat16)
    expected = logits(e.expected().bfloat16(), tokens)
    assert relative_error(logits(loaded, tokens), expected) < 0.02
    assert relative_error(logits(e.model.module, tokens), expected) > 0.2


def test_nothing_but_the_embedding_differs_in_float32(tiny_llama, tiny_tokenizer, tmp_path):
    menu = tuple(map(formats.named, ("int2_g64_sym", "int3_channel_sym", "int5_g64_sym")))
    e = Export.of(tiny_llama, tiny_tokenizer, menu, formats.named("int8_g64"))
    EXPORTERS.build("compressed_tensors").write(e.model, e.allocation, e.bank, tmp_path / "out")
    expected = e.expected()
    table = e.bank.weight("model.embed_tokens", "int8_g64")
    set_weight(expected, "model.embed_tokens", table.bfloat16().float())
    tokens = torch.arange(64)[None] * 5
    loaded = load("compressed_tensors", tmp_path / "out", dtype=torch.float32)
    assert relative_error(logits(loaded, tokens), logits(expected, tokens)) < 1e-5


PAIRS = {
    "int8_channel_sym_aint8": ("int-quantized", "int", 8, "token", None),
    "int4_g64_sym_aint8": ("pack-quantized", "int", 8, "token", None),
    "int4_channel_sym_aint4_g32": ("pack-quantized", "int", 4, "group", 32),
    "int4_g64_sym_afp8": ("pack-quantized", "float", 8, "token", None),
    "fp8_e4m3_afp8": ("float-quantized", "float", 8, "token", None),
    "mxfp4_amxfp4": ("mxfp4-pack-quantized", "float", 4, "group", 32),
    "mxfp8_e4m3_amxfp8": ("mxfp8-quantized", "float", 8, "group", 32),
    "mxfp6_e2m3_amxfp6": ("mxfp6-pack-quantized", "float", 6, "group", 32),
}
"""Scheme of each, and kind, bits, strategy and group size of its inputs."""


@pytest.fixture(scope="module")
def of_pairs(tiny_llama, tiny_tokenizer, tmp_path_factory):
    e = Export.of(tiny_llama, tiny_tokenizer, tuple(map(formats.named, PAIRS)), None, tied=False)
    folder = tmp_path_factory.mktemp("pairs") / "out"
    EXPORTERS.build("compressed_tensors").write(e.model, e.allocation, e.bank, folder)
    return e, folder


def test_pairs_say_what_inputs_are_rounded_to_as_the_model_runs(of_pairs):
    e, folder = of_pairs
    made = json.loads((folder / "config.json").read_text())["quantization_config"]
    config = QuantizationConfig.model_validate(made)
    stored = load_file(folder / "model.safetensors")
    assert set(config.config_groups) == set(PAIRS)
    for name, scheme in config.config_groups.items():
        inputs = scheme.input_activations
        given = (inputs.type, inputs.num_bits, inputs.strategy, inputs.group_size)
        assert (scheme.format, *given) == PAIRS[name]
        assert inputs.dynamic is True
        assert inputs.symmetric
        for layer in scheme.targets:
            state = {
                k.removeprefix(f"{layer}."): t
                for k, t in stored.items()
                if k.startswith(f"{layer}.")
            }
            weight = BaseCompressor.get_value_from_registry(scheme.format).decompress(state, scheme)
            expected = e.bank.weight(layer, name)
            assert torch.equal(weight["weight"], expected.to(weight["weight"].dtype)), name
            counted = sum(t.nbytes for k, t in state.items() if k != "weight_shape")
            assert counted == formats.named(name).nbytes(expected.shape), name


@pytest.mark.parametrize(
    ("names", "is_same"),
    [
        (("fp8_e4m3_afp8", "int4_g64_sym_afp8"), True),
        (("int8_channel_sym_aint8", "int4_g64_sym_aint8", "int4_channel_sym_aint4_g32"), False),
    ],
    ids=["fp8", "int"],
)
def test_transformers_rounds_inputs_of_pairs(
    names, is_same, tiny_llama, tiny_tokenizer, tiny_tokens, tmp_path
):
    """The same numbers in fp8; integers lie on another grid there, and lose as much."""
    e = Export.of(tiny_llama, tiny_tokenizer, tuple(map(formats.named, names)), None)
    EXPORTERS.build("compressed_tensors").write(e.model, e.allocation, e.bank, tmp_path / "out")
    tokens, exact = tiny_tokens[:2, :64], e.expected()
    loaded = logits(load("compressed_tensors", tmp_path / "out", dtype=torch.float32), tokens)
    rounded = logits(exact, tokens)
    for module in exact.modules():
        module._forward_pre_hooks.clear()
    unrounded = logits(exact, tokens)
    lost = relative_error(rounded, unrounded)
    assert relative_error(loaded, rounded) < (0.02 if is_same else 1.6) * lost
    assert 0.7 * lost < relative_error(loaded, unrounded) < 1.4 * lost


def test_formats_without_an_equal_are_refused_in_one_line(tiny_llama, tiny_tokenizer, tmp_path):
    for name, message in {
        "nf4_g64": "which compressed-tensors does not know: search with int2 to int8",
        "fp4_g32": "which compressed-tensors does not know",
        "mxfp6_e3m2": "which compressed-tensors does not know",
        "mxint8": "which compressed-tensors does not know",
        "nvint4": "which compressed-tensors does not know",
        "int4_g64": "no fractional zero points: search with int4_g64_sym, or export with",
        "int4_g64_aint8": "points: search with int4_g64_sym_aint8, or export with",
        "int4_g64_sym_aint8_asym": "which compressed-tensors does not know",
        "nvfp4_anvfp4": "which compressed-tensors does not know",  # whose scale is static there
        "int4_g64_had_aint8": "which compressed-tensors does not know",
    }.items():
        e = Export.of(tiny_llama, tiny_tokenizer, (formats.named(name),), None)
        with pytest.raises(InvalidArgument, match=message) as refused:
            EXPORTERS.build("compressed_tensors").write(
                e.model, e.allocation, e.bank, tmp_path / "x"
            )
        assert f"Layer 'model.layers.0.self_attn.q_proj' has {name}" in str(refused.value)
        assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_asymmetric_integers_become_symmetric_on_request(tiny_llama, tiny_tokenizer, tmp_path):
    menu = tuple(map(formats.named, ("int4_g32", "int8_channel", "int4_g64_sym")))
    e = Export.of(tiny_llama, tiny_tokenizer, menu, None)
    exporter = EXPORTERS.build("compressed_tensors", {"symmetric": True})
    exporter.write(e.model, e.allocation, e.bank, tmp_path / "out")
    anew = json.loads((tmp_path / "out" / "bitfront.json").read_text())["rounded_anew"]
    assert set(anew.items()) == {
        (layer, f"{name}_sym")
        for layer, name in e.allocation.formats.items()
        if not name.endswith("_sym")
    }
    tokens = torch.arange(64)[None] * 5
    loaded = load("compressed_tensors", tmp_path / "out", dtype=torch.float32)
    # as near to the unquantized model as the asymmetric one is
    plain = logits(tiny_llama, tokens)
    error = relative_error(logits(loaded, tokens), plain)
    assert error < 1.3 * relative_error(logits(e.expected(), tokens), plain)
