"""Calibration and evaluation text: token blocks from a text file, JSON lines, or `datasets`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import torch

from bitfront.errors import InvalidText, first_line
from bitfront.files import replacing
from bitfront.items import Item

_MAX_CHARACTERS = 20_000_000
"""Text beyond this is not read: a constant, so that blocks of two calls stay comparable."""
_KEYS = ("text", "messages", "prompt", "completion", "response")
_SUFFIXES = {".txt", ".md", ".jsonl", ".json"}
_PIECE = 1_000_000
"""Characters tokenized at a time."""
_WINDOW = 32
"""Tokens in a row that two different texts do not share: longer than phrases and names."""
_HASH_BASE = 6364136223846793005  # of Knuth's 64-bit generator: odd, with mixed high bits


def token_blocks(
    source: str,
    tokenizer: Any,
    n_sequences: int,
    sequence_length: int,
    seed: int,
) -> torch.Tensor:
    """Random blocks of consecutive tokens, int64 `[n_sequences, sequence_length]`, no overlap.

    The text is cut into blocks, the seed puts them in an order, and the first are taken. Each
    starts with the `starting_ids` of the tokenizer, which count among its tokens.

    Args:
        source: a `.jsonl` or `.json` file (one record a line, or one list), any other file as
            UTF-8 text, or a `datasets` name: `name`, `name:config` or `name:config:split`, where
            `name@revision` names a branch, tag or commit.
            A record has `text`; or `messages` (chat turns); or `prompt` with, if any, `completion`
            or `response`; or is a multiple-choice item, whose text is its context with the right
            choice. Records are joined by an empty line.
        tokenizer: of the model.
        n_sequences: how many blocks.
        sequence_length: tokens of a block.
        seed: which blocks.

    Raises:
        InvalidText: empty, too short, unreadable, not JSON, or without such keys.
    """
    tokens = _tokens(texts_of(source, tokenizer), tokenizer)
    start = torch.tensor(starting_ids(tokenizer), dtype=torch.int64)
    length = sequence_length - len(start)
    n_needed = n_sequences * length
    if len(tokens) < n_needed:
        raise InvalidText(
            f"{source} has {len(tokens):,} tokens, {n_needed:,} are needed "
            f"({n_sequences} blocks of {sequence_length}{', one of them BOS' * len(start)}): "
            "give a longer text, or fewer or shorter sequences."
        )
    blocks = tokens[: len(tokens) // length * length].view(-1, length)
    order = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(seed))
    taken = blocks[order[:n_sequences]]
    return torch.cat([start.expand(len(taken), -1), taken], dim=1)


def starting_ids(tokenizer: Any) -> list[int]:
    """The id of BOS where the tokenizer puts it before a text unasked, else nothing.

    Such models (Gemma, Llama) were trained with it and some predict nonsense without. It is found
    by encoding: that a BOS is defined (SmolLM2, GPT-2) does not mean that it is used.
    """
    bos = tokenizer.bos_token_id
    plain = tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]
    default = tokenizer("a", verbose=False)["input_ids"]
    return [bos] if bos is not None and default[:1] == [bos] != plain[:1] else []


def digest(tokens: torch.Tensor) -> str:
    """SHA-256 of shape and token ids, or pixels, in hexadecimal."""
    dtype = torch.float32 if tokens.is_floating_point() else torch.int64
    ids = tokens.detach().to("cpu", dtype).contiguous()
    return hashlib.sha256(f"{tuple(ids.shape)}\n".encode() + ids.numpy().tobytes()).hexdigest()


def check_disjoint(
    calibration: torch.Tensor,
    evaluation: torch.Tensor,
    calibration_source: str = "",
    evaluation_source: str = "",
    n_starting: int = 0,
) -> None:
    """Check that no 32 tokens in a row, at whatever offset, are in both texts.

    Blocks shorter than that are compared whole. A row of tokens that recurs within one of the texts
    (a chat template's system prompt, a licence) tells nothing, unless it is a whole block.

    Args:
        calibration: blocks of tokens, `[n_sequences, sequence_length]`.
        evaluation: blocks of the other text; sequences may have another length.
        calibration_source: where the text came from, for the message.
        evaluation_source: likewise.
        n_starting: how many tokens every block starts with that are no text, such as BOS.

    Raises:
        InvalidText: the texts overlap.
    """
    calibration, evaluation = calibration[:, n_starting:], evaluation[:, n_starting:]
    whole = min(calibration.shape[1], evaluation.shape[1])
    width = min(whole, _WINDOW)
    ours, theirs = (_window_hashes(x, width) for x in (calibration, evaluation))
    n_shared = int(torch.isin(_once(theirs), _once(ours)).sum())
    if not n_shared:
        ours, theirs = (_window_hashes(x, whole) for x in (calibration, evaluation))
        n_shared = int(torch.isin(theirs, ours).sum())
    if n_shared:
        first, second = (f" {x!r}" if x else "" for x in (calibration_source, evaluation_source))
        raise InvalidText(
            f"Calibration text{first} and evaluation text{second} share {width} tokens in a row, "
            f"in {n_shared:,} place{'s' * (n_shared > 1)}: give two different texts."
        )


def _window_hashes(tokens: torch.Tensor, width: int) -> torch.Tensor:
    """64-bit hash of the `width` tokens from every position of every block, `[n]`.

    t[i] + t[i+1] base + t[i+2] base^2 + ... modulo 2^64, from one cumulative sum.
    """
    tokens = tokens.detach().to("cpu", torch.int64) + 1
    length = tokens.shape[1]
    sums = torch.zeros(len(tokens), length + 1, dtype=torch.int64)
    torch.cumsum(tokens * _powers(_HASH_BASE, length), dim=1, out=sums[:, 1:])
    windows = sums[:, width:] - sums[:, : length - width + 1]
    inverse = pow(_HASH_BASE, -1, 1 << 64)
    return (windows * _powers(inverse, windows.shape[1])).reshape(-1)


def _powers(base: int, n: int) -> torch.Tensor:
    """base^0 to base^(n-1) modulo 2^64, as the int64 of the same bits."""
    powers = accumulate(range(1, n), lambda power, _: power * base % 2**64, initial=1)
    return torch.tensor([(power + 2**63) % 2**64 - 2**63 for power in powers])


def _once(values: torch.Tensor) -> torch.Tensor:
    """The values that come exactly once."""
    values = values.sort().values
    edges = torch.ones(len(values) + 1, dtype=torch.bool)
    edges[1:-1] = values[1:] != values[:-1]
    return values[edges[1:] & edges[:-1]]


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


def texts_of(source: str, tokenizer: Any) -> Iterator[str]:
    """Text of each record of a source of `token_blocks`; of a text file all at once."""
    path = Path(source).expanduser()
    if path.is_file() and path.suffix in {".jsonl", ".json"}:
        for place, record in _records(path):
            yield _text_of(record, f"{place} of {source}", tokenizer)
    elif path.is_file():
        yield _read(path)
    else:
        check_source(source)
        for place, record in _dataset_rows(source):
            yield _text_of(record, f"{place} of {source}", tokenizer)


def check_source(source: str) -> None:
    """Check, without reading it, that a text is there or may be the name of a data set.

    Raises:
        InvalidText: it is named like a file that is not there.
    """
    there = Path(source).expanduser().is_file()
    is_folder = Path(source.partition(":")[0]).expanduser().is_dir()
    if _looks_like_a_path(source) and not there and not is_folder:
        raise InvalidText(f"No text file at {source}: check the path.")


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
    """Each record of a JSON-lines file, or of one JSON list, with its place, read as needed."""
    try:
        with path.open("rb") as file:
            is_list = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
            file.seek(0)
            yield from _list(file, path) if is_list else _lines(file, path)
    except OSError as error:
        raise InvalidText(f"Cannot read {path}: {error.strerror}.") from error


def _list(file: BinaryIO, path: Path) -> Iterator[tuple[str, Any]]:
    try:
        records = json.loads(file.read())
    except ValueError as error:
        raise InvalidText(f"{path} is not JSON: {error}.") from error
    yield from ((f"record {number}", record) for number, record in enumerate(records, start=1))


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[str, Any]]:
    # Bytes end lines at line feeds only; as text, other line breaks inside strings would too.
    for number, line in enumerate(file, start=1):
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
    if "choices" in fields:
        return _item(fields, place)
    keys = ", ".join(map(str, fields)) or "no keys"
    raise InvalidText(f"Found {keys} in {place}: one of text, messages or prompt is needed.")


def _item(fields: Mapping[str, Any], place: str) -> str:
    try:
        return Item.from_fields(dict(fields)).text
    except InvalidText as error:
        raise InvalidText(f"Cannot read an item in {place}: {error}.") from error


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

    place, _, rest = source.partition(":")
    name, revision = (place, "") if Path(place).exists() else split_revision(place)
    config, _, split = rest.partition(":")
    try:
        rows = datasets.load_dataset(
            name,
            config or None,
            split=split or "train",
            revision=revision or None,
            streaming=True,
        )
        yield from ((f"row {number}", row) for number, row in enumerate(rows, start=1))
    except Exception as error:
        raise InvalidText(
            f"Cannot load {source!r} with datasets ({first_line(error)}): give a text file, a "
            ".jsonl file, or name:config:split of a dataset that can be reached."
        ) from error


def split_revision(name: str) -> tuple[str, str]:
    """The two parts of `name@revision`; the second is empty where there is none.

    >>> split_revision("org/text@main"), split_revision("org/text")
    (('org/text', 'main'), ('org/text', ''))
    """
    first, _, revision = name.partition("@")
    return first, revision


def save_rows(source: str, path: Path) -> None:
    """Write a `datasets` name down as JSON lines that give the same tokens.

    Args:
        source: as that of `token_blocks`.
        path: of the file; as much is written as is ever read of a text.

    Raises:
        InvalidText: it cannot be loaded.
        StorageError: the file cannot be written.
    """
    n_characters = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for _, record in _dataset_rows(source):
            kept = {key: record[key] for key in _KEYS if record.get(key) is not None}
            # A row without any is the reader's to refuse: it names the keys that are there.
            n_characters += file.write(json.dumps(kept or dict.fromkeys(record, "")) + "\n")
            if n_characters >= 2 * _MAX_CHARACTERS:
                break
