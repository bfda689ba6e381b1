"""Texts as they are named: files, JSON lines, data sets of the hub; torch is not needed for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from bitfront.errors import InvalidText, first_line
from bitfront.files import reading_text, replacing
from bitfront.items import Item, is_utf8

MAX_CHARACTERS = 20_000_000
"""Text beyond this is not read: a constant, so that blocks of two calls stay comparable."""
_KEYS = ("text", "messages", "prompt", "completion", "response")
_SUFFIXES = {".txt", ".md", ".jsonl", ".json"}


def texts_of(source: str, tokenizer: Any) -> Iterator[str]:
    """Text of each record of a source of `token_blocks`; of a text file all at once."""
    path = Path(source).expanduser()
    if path.is_file() and path.suffix not in {".jsonl", ".json"}:
        with reading_text(path), path.open(encoding="utf-8") as file:
            yield file.read(MAX_CHARACTERS)
        return
    check_source(source)
    for place, record in _records(path) if path.is_file() else _dataset_rows(source):
        text = _text_of(record, f"{place} of {source}", tokenizer)
        if not is_utf8(text):
            raise InvalidText(
                f"Half a character in {place} of {source}: JSON can spell it, but no text has it. "
                "Remove it."
            )
        yield text


def check_source(source: str) -> None:
    """Check, without reading it, that a text is there or may be the name of a data set.

    Raises:
        InvalidText: it is named like a file that is not there.
    """
    there = Path(source).expanduser().is_file()
    is_folder = Path(source.partition(":")[0]).expanduser().is_dir()
    if _looks_like_a_path(source) and not there and not is_folder:
        kind = "text file" if Path(source).suffix in _SUFFIXES else "file or folder"
        raise InvalidText(f"No {kind} at {source}: check the path.")


def _looks_like_a_path(source: str) -> bool:
    return Path(source).suffix in _SUFFIXES or source.startswith(("/", "~", "."))


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """Each record of a JSON-lines file, or of one JSON list, with its place, read as needed."""
    with reading_text(path), path.open("rb") as file:
        is_list = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
        file.seek(0)
        yield from _list(file, path) if is_list else _lines(file, path)


def _list(file: BinaryIO, path: Path) -> Iterator[tuple[str, Any]]:
    try:
        records = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise InvalidText(f"{path} is not JSON: {error}.") from error
    yield from ((f"record {number}", record) for number, record in enumerate(records, start=1))


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[str, Any]]:
    # Bytes end lines at line feeds only; as text, other line breaks inside strings would too.
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
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
            if n_characters >= 2 * MAX_CHARACTERS:
                break
