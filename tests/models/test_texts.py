"""Texts by name: every kind of source gives its texts, or one line about what is wrong."""

import json

import pytest

from bitfront.errors import InvalidText
from bitfront.models.texts import texts_of


def read(source, tokenizer=None):
    return list(texts_of(str(source), tokenizer))


def refused(source, tokenizer=None):
    with pytest.raises(InvalidText) as caught:
        read(source, tokenizer)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("start", ["", '{"text": '], ids=["list", "line"])
def test_json_that_is_too_deep_is_no_json(tmp_path, start):
    (tmp_path / "deep.jsonl").write_text(start + "[" * 100_000)
    assert "is not JSON: maximum recursion depth" in refused(tmp_path / "deep.jsonl")


@pytest.mark.parametrize(
    "record",
    [
        {"text": "Alice \ud800"},
        {"prompt": "Alice", "completion": "\udfff"},
        {"messages": [{"role": "user", "content": "\ud800"}]},
    ],
    ids=["text", "completion", "messages"],
)
def test_halves_of_characters_are_no_text(tmp_path, tiny_tokenizer, record):
    (tmp_path / "half.jsonl").write_text('{"text": "a"}\n' + json.dumps(record))
    message = refused(tmp_path / "half.jsonl", tiny_tokenizer)
    assert message.startswith(f"Half a character in line 2 of {tmp_path}")
