"""Calibration and evaluation text: token blocks from a text file, JSON lines, or `datasets`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from bitfront.errors import InvalidText

_MAX_CHARACTERS = 20_000_000
"""Text beyond this is not read: a constant, so that blocks of two calls stay comparable."""
_SUFFIXES = {".txt", ".md", ".jsonl", ".json"}
_PIECE = 1_000_000
"""Characters tokenized at a time."""


def token_blocks(
    source: str,
    tokenizer: Any,
    n_sequences: int,
    sequence_length: int,
    seed: int,
    skip: int = 0,
) -> torch.Tensor:
    """Random blocks of consecutive tokens, int64 `[n_sequences, sequence_length]`, no overlap.

    The text is cut into blocks, the seed puts them in an order, and those from `skip` on are
    taken. Two calls with the same source, seed and length share no block when
    the second skips what the first took.

    Args:
        source: a `.jsonl` or `.json` file (one record a line, or one list), any other file as
            UTF-8 text, or a `datasets` name: `name`, `name:config` or `name:config:split`.
            A record has `text`; or `messages` (chat turns); or `prompt` with, if any, `completion`
            or `response`. Records are joined by an empty line.
        tokenizer: of the model.
        n_sequences: how many blocks.
        sequence_length: tokens of a block.
        seed: which blocks.
        skip: blocks of the order left to another call.

    Raises:
        InvalidText: empty, too short, unreadable, not JSON, or without such keys.
    """
    tokens = _tokens(_texts(source, tokenizer), tokenizer)
    n_needed = (n_sequences + skip) * sequence_length
    if len(tokens) < n_needed:
        raise InvalidText(
            f"{source} has {len(tokens):,} tokens, {n_needed:,} are needed "
            f"({n_sequences + skip} blocks of {sequence_length}): "
            "give a longer text, or fewer or shorter sequences."
        )
    blocks = tokens[: len(tokens) // sequence_length * sequence_length].view(-1, sequence_length)
    order = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(seed))
    return blocks[order[skip : skip + n_sequences]].clone()


def digest(tokens: torch.Tensor) -> str:
    """SHA-256 of shape and token ids, in hexadecimal."""
    ids = tokens.detach().to("cpu", torch.int64).contiguous()
    return hashlib.sha256(f"{tuple(ids.shape)}\n".encode() + ids.numpy().tobytes()).hexdigest()


def check_disjoint(calibration: torch.Tensor, evaluation: torch.Tensor) -> None:
    """Check that no calibration block is in the evaluation text, or the other way round.

    Blocks of different lengths are compared at every position of the longer ones.

    Raises:
        InvalidText: some block is in both.
    """
    shorter, longer = sorted((calibration, evaluation), key=lambda t: t.shape[1])
    known = {block.numpy().tobytes() for block in shorter.cpu()}
    windows = longer.cpu().unfold(1, shorter.shape[1], 1).reshape(-1, shorter.shape[1])
    n_shared = sum(window.numpy().tobytes() in known for window in windows)
    if n_shared:
        raise InvalidText(
            f"{n_shared} blocks are in both the calibration and the evaluation text: "
            "give two different texts."
        )


def _tokens(texts: Iterable[str], tokenizer: Any) -> torch.Tensor:
    """All token ids, int64 `[n_tokens]`, up to the character limit."""
    kept: list[str] = []
    n_characters = 0
    for text in filter(None, texts):
        kept.append(text)
        n_characters += len(text) + 2
        if n_characters >= _MAX_CHARACTERS:
            break
    ids: list[int] = []
    for piece in _pieces("\n\n".join(kept)[:_MAX_CHARACTERS]):
        ids += tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor(ids, dtype=torch.int64)


def _pieces(text: str) -> Iterator[str]:
    """Parts of about `_PIECE` characters that end at line breaks: long texts are slow at once."""
    start = 0
    while start < len(text):
        end = text.rfind("\n", start + _PIECE // 2, start + _PIECE) + 1
        end = end or start + _PIECE
        yield text[start:end]
        start = end


def _texts(source: str, tokenizer: Any) -> Iterator[str]:
    path = Path(source).expanduser()
    if path.is_file() and path.suffix in {".jsonl", ".json"}:
        for place, record in _records(path):
            yield _text_of(record, f"{place} of {source}", tokenizer)
    elif path.is_file():
        yield _read(path)
    elif _looks_like_a_path(source) and not Path(source.partition(":")[0]).expanduser().is_dir():
        raise InvalidText(f"No text file at {source}: check the path.")
    else:
        for place, record in _dataset_rows(source):
            yield _text_of(record, f"{place} of {source}", tokenizer)


def _looks_like_a_path(source: str) -> bool:
    return Path(source).suffix in _SUFFIXES or source.startswith(("/", "~", "."))


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_MAX_CHARACTERS)
    except UnicodeDecodeError as error:
        raise InvalidText(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}."
        ) from error
    except OSError as error:
        raise InvalidText(f"Cannot read {path}: {error.strerror}.") from error


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """Each record of a JSON-lines file, or of one JSON list, with its place."""
    text = _read(path)
    if text.lstrip().startswith("["):
        try:
            yield from ((f"record {n}", r) for n, r in enumerate(json.loads(text), start=1))
        except ValueError as error:
            raise InvalidText(f"{path} is not JSON: {error}.") from error
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except ValueError as error:
                raise InvalidText(f"Line {number} of {path} is not JSON: {error}.") from error


def _text_of(record: Any, place: str, tokenizer: Any) -> str:
    """Text of one record."""
    fields = record if isinstance(record, Mapping) else {}
    if isinstance(fields.get("text"), str):
        return str(fields["text"])
    if isinstance(fields.get("messages"), list):
        return _chat(fields["messages"], place, tokenizer)
    if isinstance(fields.get("prompt"), str):
        return str(fields["prompt"]) + str(fields.get("completion", fields.get("response", "")))
    keys = ", ".join(map(str, fields)) or "no keys"
    raise InvalidText(f"Found {keys} in {place}: one of text, messages or prompt is needed.")


def _chat(messages: list[Any], place: str, tokenizer: Any) -> str:
    try:
        if tokenizer.chat_template:
            return str(tokenizer.apply_chat_template(messages, tokenize=False))
        return "\n".join(str(message["content"]) for message in messages)
    except Exception as error:  # templates raise errors of their own kinds
        raise InvalidText(f"Cannot read messages in {place}: {error}.") from error


def _dataset_rows(source: str) -> Iterator[tuple[str, Any]]:
    """Each row of a dataset, read as it arrives, with its place."""
    import datasets  # heavy, and only this source needs it

    name, _, rest = source.partition(":")
    config, _, split = rest.partition(":")
    try:
        rows = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
        yield from ((f"row {number}", row) for number, row in enumerate(rows, start=1))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InvalidText(
            f"Cannot load {source!r} with datasets ({reason}): give a text file, a .jsonl file, "
            "or name:config:split of a dataset that can be reached."
        ) from error
