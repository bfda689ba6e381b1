"""What loads, what is refused with one line, and what the digest depends on."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from bitfront.errors import InvalidArgument, InvalidModel, NonFinite
from bitfront.models.exported import load_exported
from bitfront.models.load import compute_dtype, load_model


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def change_config(folder: Path, **fields) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_weights(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def refused(folder: Path | str, error=InvalidModel) -> str:
    with pytest.raises(error) as caught:
        load_model(str(folder), device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_a_folder_loads_in_evaluation_mode(tiny_folder, tiny_llama, tiny_tokens):
    loaded = load_model(str(tiny_folder), dtype="float32", device="cpu")
    assert not loaded.module.training
    assert loaded.tokenizer.eos_token == "<|endoftext|>"
    with torch.no_grad():
        assert torch.equal(
            loaded.module(tiny_tokens[:1]).logits, tiny_llama(tiny_tokens[:1]).logits
        )


def test_dtype_is_as_asked(tiny_folder):
    assert (
        load_model(str(tiny_folder), dtype="bfloat16", device="cpu").module.dtype == torch.bfloat16
    )


def test_auto_dtype_is_bfloat16_only_where_hardware_has_it(monkeypatch):
    for native in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        assert compute_dtype("cpu") == (torch.bfloat16 if native else torch.float32)
    assert compute_dtype("cuda") == torch.bfloat16


def test_loading_leaves_the_notices_of_transformers_as_they_were(tiny_folder, capfd):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_model(str(tiny_folder), device="cpu")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


# Digest


def test_digest_ignores_path_sharding_and_volatile_fields(tiny_folder, folder):
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    shards = {"b.safetensors": names[:10], "a.safetensors": names[10:]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps(
            {"metadata": {}, "weight_map": {x: f for f, part in shards.items() for x in part}}
        )
    )
    change_config(folder, transformers_version="0.0.0", _name_or_path="elsewhere")
    digests = [load_model(str(path), device="cpu").digest for path in (tiny_folder, folder)]
    assert digests[0] == digests[1]


def halve_one(tensors):
    tensors["model.norm.weight"][0] /= 2


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: change_weights(folder, halve_one),
        lambda folder: change_config(folder, rms_norm_eps=0.1),
    ],
    ids=["weight", "configuration"],
)
def test_digest_sees_every_change_of_the_model(tiny_folder, folder, change):
    change(folder)
    digests = [load_model(str(path), device="cpu").digest for path in (tiny_folder, folder)]
    assert digests[0] != digests[1]


# Refusals


def test_missing_folder(tmp_path):
    assert "No model at" in refused(tmp_path / "nothing")


def test_a_file_that_is_no_model(calibration_file):
    assert ".txt file" in refused(calibration_file)


def test_folder_without_config(tmp_path):
    assert "no config.json" in refused(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"a":' * 100_000], ids=["cut", "list", "deep"])
def test_broken_config(folder, text):
    (folder / "config.json").write_text(text)
    assert "Cannot read config.json" in refused(folder)
    with pytest.raises(InvalidModel, match=r"^Cannot read config\.json of [^\n]*\.$"):
        load_exported(folder, torch.float32, "cpu")


def test_pickled_weights_are_never_opened(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickled" in refused(folder)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "no model.safetensors" in refused(folder)


@pytest.mark.parametrize("kept", [0, 4, 1000, 400_000], ids=lambda n: f"{n}_bytes")
def test_truncated_weights(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "truncated or corrupt" in refused(folder)


def test_missing_shard(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00001-of-00002.safetensors is missing" in refused(folder)


@pytest.mark.parametrize("name", ["../other/model.safetensors", "/etc/hostname", "a/../../b"])
def test_an_index_cannot_name_files_elsewhere(folder, name):
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    index = {"weight_map": {"model.norm.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "not a file beside it" in refused(folder)


def test_missing_tensor(folder):
    change_weights(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    assert "model.layers.1.mlp.up_proj.weight" in refused(folder)


def test_unexpected_shape(folder):
    change_config(folder, intermediate_size=96)
    assert "Cannot load" in refused(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(folder, value):
    def poison(tensors):
        tensors["model.layers.2.mlp.down_proj.weight"][3, 5] = value

    change_weights(folder, poison)
    assert "model.layers.2.mlp.down_proj.weight" in refused(folder, NonFinite)


def test_no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    assert "no tokenizer" in refused(folder)


def test_broken_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer" in refused(folder)


@pytest.mark.parametrize("token", ["<image_soft_token>", "<fim_a>"])
def test_a_tokenizer_with_an_id_to_spare(folder, token):
    """As gemma-3-1b-it, whose id 262144 is of an image, and CodeLlama-34b."""
    path = folder / "tokenizer.json"
    fields = json.loads(path.read_text())
    added = {**fields["added_tokens"][0], "id": 512, "content": token}
    fields["added_tokens"].append(added)
    path.write_text(json.dumps(fields))
    loaded = load_model(str(folder), device="cpu")
    assert loaded.tokenizer(token)["input_ids"] == [512]
    assert loaded.n_rows == 512


def keep_ids(folder: Path, n: int) -> None:
    """Cut a byte-level BPE to its first `n` ids; none of the merged ones may be among them."""
    path = folder / "tokenizer.json"
    fields = json.loads(path.read_text())
    vocabulary = fields["model"]["vocab"]
    fields["model"]["vocab"] = {token: i for token, i in vocabulary.items() if i < n}
    fields["model"]["merges"] = []
    path.write_text(json.dumps(fields))


def test_a_tokenizer_that_knows_few_of_the_ids(folder):
    keep_ids(folder, 256)
    load_model(str(folder), device="cpu")
    keep_ids(folder, 255)
    assert "knows 255 ids, its embedding has 512 rows" in refused(folder)


def test_remote_code_stays_off(folder):
    code = folder / "modeling_own.py"
    code.write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    change_config(folder, model_type="own", auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
    assert "code of its own, which stays off" in refused(folder)
    assert not (folder / "ran").exists()


def test_remote_code_stays_off_whatever_is_answered(folder, monkeypatch):
    """A known family without a causal language model would fall back on the folder's own code."""
    code = folder / "modeling_own.py"
    code.write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    change_config(folder, model_type="t5", auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    refused(folder)
    assert not (folder / "ran").exists()


def test_a_tokenizer_with_code_of_its_own(folder, monkeypatch):
    code = folder / "own.py"
    code.write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    path = folder / "tokenizer_config.json"
    fields = json.loads(path.read_text()) if path.exists() else {}
    fields |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    path.write_text(json.dumps(fields))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with contextlib.suppress(InvalidModel):
        load_model(str(folder), device="cpu")
    assert not (folder / "ran").exists()


def test_an_already_quantized_model(folder):
    change_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    assert "already quantized (gptq)" in refused(folder)


@pytest.mark.parametrize("value", ["gptq", ["gptq"], 4], ids=str)
def test_a_quantization_config_that_is_no_object(folder, value):
    change_config(folder, quantization_config=value)
    assert "quantization_config in config.json" in refused(folder)


def test_a_model_type_that_is_no_name(folder):
    change_config(folder, model_type=["llama"])
    assert "of type ['llama'], unknown" in refused(folder)


def test_cuda_where_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidArgument, match=r"device 'cuda'.*cpu or auto") as caught:
        load_model(str(tmp_path), device="cuda")  # refused before the model is looked for
    assert "\n" not in str(caught.value)


def test_broken_gguf(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    assert "as GGUF" in refused(path)
    assert "No model at" in refused(tmp_path / "other.gguf")


# Hub ids: no hub is reachable here, so the cache in hub layout stands in for it.


def test_a_hub_id_loads_from_the_hub_layout(monkeypatch, tmp_path, tiny_folder):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--org--tiny", "0" * 40
    shutil.copytree(tiny_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    loaded = load_model("org/tiny", device="cpu")
    assert loaded.digest == load_model(str(tiny_folder), device="cpu").digest
    assert loaded.source == "org/tiny"


# GGUF: a float32 file written with the `gguf` package.


def write_gguf(path: Path, folder: Path) -> None:
    import gguf
    from transformers import AutoTokenizer

    tensors = load_file(folder / "model.safetensors")
    vocabulary = AutoTokenizer.from_pretrained(folder).get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.get)
    merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(4)
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(512)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * 511)
    writer.add_token_merges([" ".join(m) for m in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    parts = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"} | {
        f"model.layers.{n}.{ours}": f"blk.{n}.{theirs}"
        for n in range(4)
        for ours, theirs in parts.items()
    }
    for ours, theirs in names.items():
        weight = tensors[f"{ours}.weight"]
        n_heads = {"attn_q": 4, "attn_k": 2}.get(theirs.rpartition(".")[2])
        if n_heads:  # llama.cpp interleaves the halves of each rotary head
            weight = weight.view(n_heads, 2, -1, 64).transpose(1, 2).reshape(weight.shape)
        writer.add_tensor(f"{theirs}.weight", weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_loads_as_the_same_model(tiny_folder, tiny_llama, tiny_tokens, tmp_path, capfd):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_folder)
    capfd.readouterr()
    loaded = load_model(str(path), dtype="float32", device="cpu")
    assert capfd.readouterr() == ("", "")
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.module(tiny_tokens[:1]).logits,
            tiny_llama(tiny_tokens[:1]).logits,
            rtol=1e-4,
            atol=1e-4,
        )
    assert loaded.tokenizer("Alice was")["input_ids"]
    loaded.module.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").exists()
