"""Texts by name: every kind of source gives its texts, or one line about what is wrong."""

import json

import pytest

from bitfront.errors import InvalidText
from bitfront.models import texts
from bitfront.models.texts import check_source, save_rows, texts_of


def read(source, tokenizer=None):
    return list(texts_of(str(source), tokenizer))


def refused(source, tokenizer=None):
    with pytest.raises(InvalidText) as caught:
        read(source, tokenizer)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Text files


def test_a_text_file_is_one_text(tmp_path):
    for name, text in (("a.txt", "Alice\n\nwas\n"), ("b", '{"text": "a"}'), ("c.md", "")):
        (tmp_path / name).write_text(text)
        assert read(tmp_path / name) == [text]


def test_a_home_directory_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("Alice")
    check_source("~/a.txt")
    assert read("~/a.txt") == ["Alice"]


def test_text_beyond_the_limit_is_not_read(monkeypatch, tmp_path):
    monkeypatch.setattr(texts, "MAX_CHARACTERS", 5)
    (tmp_path / "a.txt").write_text("ééééé, Alice")
    assert read(tmp_path / "a.txt") == ["ééééé"]


def test_text_that_is_not_utf8(tmp_path):
    (tmp_path / "latin.txt").write_bytes("déjà vu".encode("latin-1"))
    assert "is not UTF-8 text: invalid continuation byte at byte 1." in refused(
        tmp_path / "latin.txt"
    )
    (tmp_path / "latin.jsonl").write_bytes('{"text": "déjà vu"}'.encode("latin-1"))
    assert "Line 1 of" in refused(tmp_path / "latin.jsonl")


@pytest.mark.parametrize("name", ["./nothing", "nothing.txt", "/nowhere/a", "~/nothing.jsonl"])
def test_what_is_named_like_a_file_must_be_there(name):
    # Without an ending it may have been meant for the images of a model that sees.
    kind = "text file" if "." in name[1:] else "file or folder"
    assert refused(name) == f"No {kind} at {name}: check the path."
    with pytest.raises(InvalidText, match=f"No {kind} at"):
        check_source(name)


def test_what_may_be_a_data_set_is_not_looked_for(tmp_path):
    for name in ("org/text", "org/text@main:plain:test", f"{tmp_path}:plain", str(tmp_path)):
        check_source(name)


# Records


@pytest.mark.parametrize(
    "record",
    [
        {"text": "Alice was here. "},
        {"prompt": "Alice was", "completion": " here. "},
        {"prompt": "Alice was", "response": " here. "},
        {"prompt": "Alice was here. "},
        {"messages": [{"role": "user", "content": "Alice was here. "}]},
        {"context": "Alice was", "choices": ["not", "here. "], "answer": 1},
    ],
    ids=["text", "prompt+completion", "prompt+response", "prompt", "messages", "item"],
)
@pytest.mark.parametrize("as_list", [False, True], ids=["lines", "list"])
def test_every_kind_of_record_gives_its_text(tmp_path, tiny_tokenizer, record, as_list):
    path, records = tmp_path / "records.json", [record, {"text": "So."}]
    path.write_text(json.dumps(records) if as_list else "\n\n".join(map(json.dumps, records)))
    assert read(path, tiny_tokenizer) == ["Alice was here. ", "So."]


def test_only_line_feeds_end_a_record(tmp_path):
    text = "Alice\u2028was\x85here,\u2029she said. "
    lines = [json.dumps({"text": text}, ensure_ascii=False)] * 2
    path = tmp_path / "records.jsonl"
    path.write_text("\r\n".join(lines), encoding="utf-8", newline="")
    assert read(path) == [text] * 2


@pytest.mark.parametrize("content", ['{"text": "a"}\n', ' [{"text": "a"}]'])
def test_a_byte_order_mark_is_no_part_of_a_record(tmp_path, content):
    (tmp_path / "records.jsonl").write_text(content, encoding="utf-8-sig")
    assert read(tmp_path / "records.jsonl") == ["a"]


def test_a_file_without_records_has_no_texts(tmp_path):
    for content in ("", "\n \n", "[]"):
        (tmp_path / "none.jsonl").write_text(content)
        assert read(tmp_path / "none.jsonl") == []


def test_messages_go_through_the_chat_template(tmp_path, tiny_tokenizer):
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "Who?"}] * 2}))
    tokenizer = type(tiny_tokenizer).from_pretrained(tiny_tokenizer.name_or_path)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}> {{ m.content }}{% endfor %}"
    assert read(path, tokenizer) == ["<user> Who?<user> Who?"]
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    assert "Cannot read messages in line 1 of" in refused(path, tokenizer)


def test_messages_without_content_are_named(tmp_path, tiny_tokenizer):
    (tmp_path / "chat.jsonl").write_text('{"messages": [{"role": "user"}]}')
    assert "Cannot read messages in line 1 of" in refused(tmp_path / "chat.jsonl", tiny_tokenizer)


def test_a_bad_item_is_named(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"context": "a", "choices": ["b", "c"], "answer": 2}))
    assert "item in line 1 of" in refused(path)
    assert "answer is 2" in refused(path)


def test_bad_json_names_the_line(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n\n{"text": \n')
    assert "Line 3 of" in refused(tmp_path / "bad.jsonl")


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


def test_unknown_keys_are_listed(tmp_path):
    (tmp_path / "keys.jsonl").write_text('{"text": "a"}\n{"title": "b", "body": "c"}\n')
    message = refused(tmp_path / "keys.jsonl")
    assert "title, body in line 2" in message
    assert "text, messages or prompt" in message
    (tmp_path / "list.json").write_text('["a"]')
    assert "Found no keys in record 1 of" in refused(tmp_path / "list.json")


# Data sets: no hub is reachable here, so a local folder in hub layout stands in for it.

ROWS = {"train": ["Alice was here.", "So was her cat."], "test": ["Nobody was."]}


@pytest.fixture
def books(tmp_path):
    """A data set of two configurations, each of two splits."""
    folder, lines = tmp_path / "books", ["configs:"]
    for config in ("plain", "other"):
        (folder / config).mkdir(parents=True)
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, rows in ROWS.items():
            records = [{"text": f"{config}: {row}", "page": 1} for row in rows]
            path = folder / config / f"{split}.jsonl"
            path.write_text("\n".join(map(json.dumps, records)))
            lines += [f"  - split: {split}", f"    path: {config}/{split}.jsonl"]
    (folder / "README.md").write_text("\n".join(["---", *lines, "---", ""]))
    return folder


def test_a_data_set_gives_the_text_of_its_rows(books):
    for source, config, split in (
        ("plain", "plain", "train"),
        ("plain:test", "plain", "test"),
        ("other:train", "other", "train"),
    ):
        assert read(f"{books}:{source}") == [f"{config}: {row}" for row in ROWS[split]]


def test_a_data_set_that_cannot_be_loaded(books, tmp_path):
    assert "Cannot load" in refused(f"{books}:missing")
    assert "Cannot load" in refused(f"{books}:plain:missing")
    (tmp_path / "bare").mkdir()
    assert "Cannot load" in refused(tmp_path / "bare")


def test_an_unreachable_data_set_is_named(monkeypatch):
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "Cannot load 'no_such_dataset'" in refused("no_such_dataset")


def test_saved_rows_give_the_same_texts_without_what_is_not_read(books, tmp_path):
    source, path = f"{books}:plain", tmp_path / "saved.jsonl"
    save_rows(source, path)
    assert read(path) == read(source)
    rows = map(json.loads, path.read_text().splitlines())
    assert {key for row in rows for key in row} == {"text"}


def test_saved_rows_without_text_name_their_keys_as_the_data_set_does(books, tmp_path):
    path = tmp_path / "saved.jsonl"
    for split in ROWS:
        (books / "plain" / f"{split}.jsonl").write_text('{"title": "a", "body": "b"}\n')
    save_rows(f"{books}:plain", path)
    assert "Found title, body in line 1 of" in refused(path)
    assert "Found title, body in row 1 of" in refused(f"{books}:plain")


def test_no_more_rows_are_saved_than_are_read(books, tmp_path, monkeypatch):
    rows = [{"text": "Alice was here."}] * 100
    (books / "plain" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(texts, "MAX_CHARACTERS", 100)
    save_rows(f"{books}:plain", tmp_path / "saved.jsonl")
    saved = read(tmp_path / "saved.jsonl")
    assert len("\n\n".join(saved)) >= 100
    assert len(saved) < 10


def test_rows_that_cannot_be_loaded_leave_no_file(books, tmp_path):
    with pytest.raises(InvalidText, match="Cannot load"):
        save_rows(f"{books}:missing", tmp_path / "saved.jsonl")
    assert not (tmp_path / "saved.jsonl").exists()
