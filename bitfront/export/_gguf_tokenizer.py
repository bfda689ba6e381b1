"""A tokenizer in the words of llama.cpp: tokens, kinds, merges or scores, special ids."""

from __future__ import annotations

import json
import re
from typing import Any

import gguf

from bitfront.errors import InvalidModel

_PRE_TOKENIZERS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
}
"""What llama.cpp calls the ways to cut text into words, by the expression that cuts."""


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any, n_rows: int) -> None:
    """Write a byte-pair tokenizer.

    Args:
        writer: of the file.
        tokenizer: of transformers.
        n_rows: rows of the embedding; ids without a token become unused ones.

    Raises:
        InvalidModel: a kind of tokenizer, or a way to cut words, that is not written.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    made: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {"model": {}}
    model = made["model"]
    if model.get("type") != "BPE":
        raise InvalidModel(
            f"The tokenizer ({type(tokenizer).__name__}) is no byte-pair one, and GGUF is written "
            "with those only: export with packed or fake_quant."
        )
    tokens, kinds = _tokens(made, tokenizer, n_rows)
    merges = [each.split(" ") if isinstance(each, str) else each for each in model["merges"]]
    if model.get("byte_fallback"):
        ranks = {"".join(pair): -float(rank) for rank, pair in reversed(list(enumerate(merges, 1)))}
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores([ranks.get(token, 0.0) for token in tokens])
        writer.add_add_space_prefix(_adds_space(made))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_pre_tokenizer(made["pre_tokenizer"]))
        writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    _add_special(writer, tokenizer)


def _tokens(made: dict[str, Any], tokenizer: Any, n_rows: int) -> tuple[list[str], list[int]]:
    """Token and kind of each id."""
    known = {index: token for token, index in made["model"]["vocab"].items()}
    kinds = dict.fromkeys(known, gguf.TokenType.NORMAL)
    if made["model"].get("byte_fallback"):
        kinds |= {i: gguf.TokenType.BYTE for i, t in known.items() if re.fullmatch("<0x..>", t)}
    for added in made["added_tokens"]:
        known[added["id"]] = added["content"]
        special = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        kinds[added["id"]] = special
    if tokenizer.unk_token_id is not None and made["model"].get("byte_fallback"):
        kinds[tokenizer.unk_token_id] = gguf.TokenType.UNKNOWN
    ids = range(max(n_rows, max(known) + 1))
    tokens = [known.get(index, f"[PAD{index}]") for index in ids]
    return tokens[:n_rows], [int(kinds.get(i, gguf.TokenType.UNUSED)) for i in ids][:n_rows]


def _steps(made: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The parts of a normalizer, or of a way to cut words."""
    if made is None:
        return []
    steps: list[dict[str, Any]] = made.get("normalizers", made.get("pretokenizers", [made]))
    return steps


def _adds_space(made: dict[str, Any]) -> bool:
    """Whether text begins with a space."""
    steps = _steps(made["normalizer"]) + _steps(made["pre_tokenizer"])
    return any(s["type"] == "Prepend" or s.get("prepend_scheme", "never") != "never" for s in steps)


def _pre_tokenizer(made: dict[str, Any] | None) -> str:
    """Name that llama.cpp has for a way to cut words.

    Raises:
        InvalidModel: none.
    """
    steps = _steps(made)
    kinds = [step["type"] for step in steps]
    by_words = bool(steps) and kinds[-1] == "ByteLevel" and steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and by_words:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and by_words and steps[0]["individual_digits"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not by_words:
        pattern = steps[0]["pattern"].get("Regex")
        if pattern in _PRE_TOKENIZERS:
            return _PRE_TOKENIZERS[pattern]
    raise InvalidModel(
        f"The tokenizer cuts words in a way ({', '.join(kinds) or 'none'}) that is not written as "
        "GGUF: those of GPT-2, SmolLM, Llama 3 and Qwen2 are; export with packed or fake_quant."
    )


def _add_special(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    for name in ("bos", "eos", "unk", "pad"):
        index = getattr(tokenizer, f"{name}_token_id")
        if index is not None:
            getattr(writer, f"add_{name}_token_id")(index)
    ids = tokenizer("a")["input_ids"]
    begins, ends = tokenizer.bos_token_id, tokenizer.eos_token_id
    writer.add_add_bos_token(begins is not None and ids[0] == begins)
    writer.add_add_eos_token(ends is not None and len(ids) > 1 and ids[-1] == ends)
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, str):
        writer.add_chat_template(template)
