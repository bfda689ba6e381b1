"""Items are read from JSON lines, and bad lines are one clear line."""

import json

import pytest

from bitfront.errors import InvalidText
from bitfront.items import Item, digest, read_items

GOOD = {"context": "2 + 2 =", "choices": ["4", "fünf"], "answer": 0}


def written(tmp_path, *rows):
    path = tmp_path / "items.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_contexts_questions_and_contexts_of_each_choice(tmp_path):
    question = {"question": "Who?", "choices": ["I", "you"], "answer": 1}
    each = {"context": ["a", "b"], "choices": ["c", "c"], "answer": 1}
    first, second, third = read_items(written(tmp_path, GOOD, "", question, each))
    assert first == Item(("2 + 2 =",) * 2, ("4", "fünf"), 0)
    assert first.n_bytes == (1, 5)
    assert second.contexts == ("Question: Who?\nAnswer:",) * 2
    assert third.contexts == ("a", "b")


def test_items_come_back_as_they_were_written(tmp_path):
    items = (Item(("a", "b"), ("c", "d"), 1), Item(("e\n",) * 3, ("f", "g", "h"), 2))
    again = read_items(written(tmp_path, *(item.to_json() for item in items)))
    assert again == items
    assert digest(again) == digest(items) != digest(items[:1])


def test_the_first_so_many_are_read(tmp_path):
    assert len(read_items(written(tmp_path, GOOD, GOOD, "garbage"), 2)) == 2


BAD = {
    "no choices": ({"context": "a", "answer": 0}, "choices must be a list of at least 2"),
    "one choice": (GOOD | {"choices": ["4"]}, "at least 2"),
    "an empty choice": (GOOD | {"choices": ["4", ""]}, "at least 2"),
    "answer too large": (GOOD | {"answer": 2}, "answer is 2: with 2 choices give 0 to 1"),
    "answer below zero": (GOOD | {"answer": -1}, "give 0 to 1"),
    "answer in words": (GOOD | {"answer": "A"}, "answer is 'A'"),
    "answer true": (GOOD | {"answer": True}, "answer is True"),
    "no context": ({"choices": ["4", "5"], "answer": 0}, "or give a question"),
    "fewer contexts": (GOOD | {"context": ["a"]}, "one for each choice"),
    "half a character": (GOOD | {"choices": ["4", "\ud800"]}, "choices must be a list"),
    "a list": ([1, 2], "choices must be"),
    "no JSON": ("{", "not JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_named_with_what_is_wrong(case, tmp_path):
    row, expected = BAD[case]
    with pytest.raises(InvalidText) as caught:
        read_items(written(tmp_path, GOOD, row))
    assert "Line 2 of" in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_without_items_and_no_files(tmp_path):
    with pytest.raises(InvalidText, match="has no items"):
        read_items(written(tmp_path, ""))
    with pytest.raises(InvalidText, match="No such file"):
        read_items(tmp_path / "nowhere.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"context": "é"}'.encode("latin-1"))
    with pytest.raises(InvalidText, match="not UTF-8"):
        read_items(tmp_path / "latin.jsonl")
