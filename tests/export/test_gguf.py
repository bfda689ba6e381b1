"""The GGUF file: values of every format, and llama.cpp itself running it."""

import json
import re
import resource

import numpy as np
import pytest
import torch
from gguf import GGUFReader, quants
from tokenizers import (
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from trained import DATA
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bitfront import formats
from bitfront.errors import InvalidModel, StorageError
from bitfront.export import EXPORTERS
from bitfront.export._ggml import ggml_type
from bitfront.models.load import LoadedModel, load_model
from tests.export.exports import Export
from tests.export.llama_cpp import asked
from tests.models.test_layers import build

CATALOGUE = formats.catalogue()
EXACT = {name: f for name, f in CATALOGUE.items() if ggml_type(f)[1]}
TEXTS = (
    "Alice was beginning to get very tired, wasn't she?",
    "  In 1865 there were 12,345 rabbits.\n\n\tAnd  then? ",
    "naïve café — 東京 🙂",
)


def write(e, folder, **params):
    EXPORTERS.build("gguf", params).write(e.model, e.allocation, e.bank, folder)
    return folder / "model.gguf"


def tensors(path):
    """Type and numbers of each tensor of a file."""
    return {
        t.name: (t.tensor_type.name, quants.dequantize(t.data, t.tensor_type))
        for t in GGUFReader(path).tensors
    }


def distance(said, module, prompts):
    """Largest KL divergence from what torch says next, over prompts."""
    with torch.no_grad():
        last = [module(torch.tensor([ids])).logits[0, -1].float() for ids in prompts]
    expected = torch.stack(last).log_softmax(-1)
    return float((expected.exp() * (expected - said)).sum(-1).max())


@pytest.fixture(scope="module")
def every_format(tiny_tokenizer, tmp_path_factory):
    """One file whose matrices take every format that ggml has an equal of, in turn."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 256}
    blocks = {"num_hidden_layers": -(-len(EXACT) // 7), "num_attention_heads": 4}
    module = LlamaForCausalLM(LlamaConfig(**sizes, **blocks, tie_word_embeddings=False)).eval()
    menu = tuple(EXACT.values())
    e = Export.of(module, tiny_tokenizer, menu, formats.named("int8_g128_sym"), tied=False)
    return e, write(e, tmp_path_factory.mktemp("every") / "out")


def test_values_are_those_that_were_measured(every_format):
    e, path = every_format
    written = tensors(path)
    names = {"o_proj": "attn_output", "v_proj": "attn_v", "gate_proj": "ffn_gate"}
    names |= {"up_proj": "ffn_up", "down_proj": "ffn_down"}  # q and k have another order of rows
    seen = set()
    for layer, name in e.allocation.formats.items():
        kind = layer.split(".")[-1]
        if kind not in names:
            continue
        block = layer.split(".")[2]
        stored, numbers = written[f"blk.{block}.{names[kind]}.weight"]
        expected = e.bank.weight(layer, name).numpy()
        assert stored == ggml_type(EXACT[name])[0].name
        if name.startswith("int") and not name.endswith("_sym"):
            # the lowest level is rounded to float16: 2^-11 of it, far below a step
            step = np.abs(expected).max() / 2 ** EXACT[name].num_bits
            assert np.abs(numbers - expected).max() < 0.02 * step
        else:
            assert np.array_equal(numbers, expected), name
        seen.add(name)
    assert len(seen) > len(EXACT) / 2


@pytest.mark.parametrize("menu", [("int4_g64_sym", "int3_channel", "int5_g64", "bf16"), ("mxfp4",)])
def test_llama_cpp_says_what_torch_says(menu, tiny_llama, tiny_tokenizer, tiny_tokens, tmp_path):
    stored = tuple(map(formats.named, menu))
    e = Export.of(tiny_llama, tiny_tokenizer, stored, formats.named("int8_g64_sym"))
    path = write(e, tmp_path / "out")
    prompts = [tiny_tokens[row, : 8 * row + 5].tolist() for row in range(6)]
    said, cut = asked(path, prompts, TEXTS)
    # llama.cpp rounds activations to 8 bits as well
    assert distance(said, e.expected(), prompts) < 2e-3
    assert distance(said, tiny_llama, prompts) > 2e-3
    assert cut == [tiny_tokenizer(text)["input_ids"] for text in TEXTS]


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("llama", {"attention_bias": True, "head_dim": 16, "tie_word_embeddings": False}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e4, "factor": 2.0}}),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 1e4,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 16,
                }
            },
        ),
        ("mistral", {}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
    ],
    ids=["bias", "linear", "llama3", "mistral", "qwen2", "qwen3"],
)
def test_llama_cpp_runs_every_family(family, fields, tiny_tokenizer, tmp_path):
    module = build(family, vocab_size=512, **fields)
    with torch.no_grad():
        for parameter in module.parameters():  # random weights say nearly the same to everything
            parameter.mul_(5.0 if parameter.dim() > 1 else 1.0)
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape) / 5)
    e = Export.of(module, tiny_tokenizer, (formats.named("bf16"),), None)
    prompts = [[7, 300, 41, 5, 99, 250, 17, 3][: n + 1] * 3 for n in range(2, 8)]
    said, _ = asked(write(e, tmp_path / "out"), prompts)
    assert distance(said, e.expected(), prompts) < 5e-3
    with torch.no_grad():
        spread = torch.stack([module(torch.tensor([ids])).logits[0, -1] for ids in prompts])
    assert spread.std(0).mean() > 0.05  # they do differ


def test_groups_narrower_than_a_block_have_no_equal():
    narrow = {n: ggml_type(f) for n, f in CATALOGUE.items() if "_g16" in n}
    assert len(narrow) == 14
    assert not any(is_exact for _, is_exact in narrow.values())
    kinds = {name: kind.name for name, (kind, _) in narrow.items()}
    assert kinds["int5_g16_sym"] == "Q5_0"
    assert kinds["int3_g16"] == "Q4_1"
    assert kinds["int8_g16"] == "Q8_0"


def test_formats_without_an_equal_are_rounded_anew_and_listed(tiny_export, tmp_path):
    e = tiny_export
    path = write(e, tmp_path / "out")
    anew = json.loads((tmp_path / "out" / "bitfront.json").read_text())["rounded_anew"]
    names = {"nf4_g32": "Q4_0", "int8_g64": "Q8_0"}
    rest = {k: f for k, f in e.allocation.formats.items() if f in names}
    assert anew == {layer: names[f] for layer, f in rest.items()}
    kind, numbers = tensors(path)["token_embd.weight"]
    table = e.model.module.model.embed_tokens.weight.detach().numpy()
    assert kind == "Q8_0"
    assert 0 < np.abs(numbers - table).max() < np.abs(table).max() / 250


def test_the_unquantized_model_and_the_types_that_llama_quantize_makes_of_it(tiny_export, tmp_path):
    e = tiny_export
    written = tensors(write(e, tmp_path / "out", unquantized=True))
    assert {kind for kind, _ in written.values()} == {"F32", "BF16"}
    weight = e.model.module.model.layers[0].mlp.up_proj.weight.detach()
    expected = weight.bfloat16().float().numpy()
    assert np.array_equal(written["blk.0.ffn_up.weight"][1], expected)
    lines = (tmp_path / "out" / "tensor-types.txt").read_text().splitlines()
    chosen = {}
    for line in lines:
        pattern, _, kind = line.rpartition("=")
        (name,) = [name for name in written if re.search(pattern, name)]
        chosen[name] = kind
    bits = {"int2_g64": "q2_K", "int3_g64": "q3_K", "int4_g64": "q4_K", "nf4_g32": "q4_K"}
    bits |= {"bf16": "bf16", "int8_g64": "q8_0"}
    assert chosen["token_embd.weight"] == "q8_0"
    for layer, name in e.allocation.formats.items():
        if layer.endswith("o_proj"):
            assert chosen[f"blk.{layer.split('.')[2]}.attn_output.weight"] == bits[name]
    assert len(lines) == len(e.allocation.formats)


_LINES = [line for line in (DATA / "alice.txt").read_text()[:30_000].split("\n") if line]
LLAMA_3, QWEN_2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    + digits
    + r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    for digits in (r"\p{N}{1,3}", r"\p{N}")
)
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)
CUTS = {
    "gpt-2": _WORDS,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _WORDS]),
    "llama-bpe": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA_3), behavior="isolated"), _BYTES]
    ),
    "qwen2": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN_2), behavior="isolated"), _BYTES]
    ),
}


@pytest.mark.parametrize("name", CUTS)
def test_llama_cpp_cuts_text_as_the_tokenizer_does(name, tiny_llama, tmp_path):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = _BYTES  # merges across words, so that the cuts matter
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator([*_LINES, *["1865 12,345 wasn't she?\n\n"] * 99], trainer)
    backend.pre_tokenizer = CUTS[name]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    e = Export.of(tiny_llama, tokenizer, (formats.named("bf16"),), None)
    texts = (*TEXTS, "a<|end|>b 1865")
    _, cut = asked(write(e, tmp_path / "out"), texts=texts)
    assert cut == [tokenizer(text)["input_ids"] for text in texts]


@pytest.mark.parametrize("spaces", ["normalizer", "metaspace"])
def test_llama_cpp_cuts_text_as_a_tokenizer_of_llama_2_does(spaces, tiny_llama, tmp_path):
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if spaces == "normalizer":
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        backend.normalizer = normalizers.Sequence(steps)
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    special = ["<unk>", "<s>", "</s>"]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=special + fallback)
    backend.train_from_iterator(_LINES, trainer)
    made = json.loads(backend.to_str())
    made["added_tokens"] = made["added_tokens"][:3]  # bytes are ordinary tokens
    backend = Tokenizer.from_str(json.dumps(made))
    backend.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    e = Export.of(tiny_llama, tokenizer, (formats.named("bf16"),), None)
    texts = ("Alice was beginning to get very tired", "In 1865 there were rabbits", "naïve 東京")
    _, cut = asked(write(e, tmp_path / "out"), texts=texts)
    assert cut == [tokenizer(text)["input_ids"] for text in texts]
    assert all(ids[0] == 1 for ids in cut)


def test_what_llama_cpp_has_no_place_for_is_refused(tiny_llama, tiny_tokenizer, tmp_path):
    menu = (formats.named("int4_channel"),)
    odd = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512, hidden_size=80, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=4,
        )
    )  # fmt: skip
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")))
    unknown = Tokenizer(models.BPE({"a": 0}, []))
    unknown.pre_tokenizer = pre_tokenizers.Whitespace()
    gelu = build("llama", hidden_act="gelu")
    for module, tokenizer, message in (
        (build("phi"), tiny_tokenizer, "type 'phi' cannot be written as GGUF, only llama"),
        (odd, tiny_tokenizer, "has 80 columns, and GGUF types have blocks of 32"),
        (gelu, tiny_tokenizer, "hidden_act is 'gelu' in this llama model"),
        (tiny_llama, words, "is no byte-pair one"),
        (
            tiny_llama,
            PreTrainedTokenizerFast(tokenizer_object=unknown),
            r"cuts words in a way \(Whitespace\)",
        ),
    ):
        e = Export.of(module.eval(), tokenizer, menu, None)
        with pytest.raises(InvalidModel, match=message) as refused:
            write(e, tmp_path / "out")
        assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_at_the_last_bytes(tiny_llama, tiny_tokenizer, tmp_path):
    # the last tensor fits into the buffer of the file, which is written when it is closed
    e = Export.of(tiny_llama, tiny_tokenizer, (formats.named("int4_g64_sym"),), None)
    size = write(e, tmp_path / "out").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 100, hard))
    try:
        with pytest.raises(StorageError, match="Cannot write"):
            write(e, tmp_path / "again")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_was_written_is_a_model_to_search_again(tiny_llama, tiny_tokenizer, tmp_path):
    e = Export.of(tiny_llama, tiny_tokenizer, (formats.named("bf16"),), None)
    path = write(e, tmp_path / "out")
    again = load_model(str(path), dtype="float32", device="cpu")
    assert isinstance(again, LoadedModel)
    assert again.tokenizer("Alice")["input_ids"] == tiny_tokenizer("Alice")["input_ids"]
