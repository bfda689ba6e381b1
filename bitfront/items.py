"""Item: a multiple-choice question, read from JSON lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from bitfront.errors import InvalidText
from bitfront.files import reading_text

DELIMITER = " "
"""Between a context and a choice, as lm-eval's `target_delimiter`."""


@dataclass(frozen=True)
class Item:
    """A question with choices, one of which is right.

    Args:
        contexts: what comes before each choice; nearly always the same for all.
        choices: what may follow, without the space in between.
        answer: index of the right one, from 0.
    """

    contexts: tuple[str, ...]
    choices: tuple[str, ...]
    answer: int

    @classmethod
    def from_fields(cls, fields: Any) -> Item:
        r"""An item of a line's JSON.

        `choices` is a list of texts and `answer` the index of the right one. `context` is the whole
        prompt, or a list with one for each choice; a `question` becomes
        `"Question: ...\nAnswer:"`, as lm-eval's ARC has it.

        >>> Item.from_fields({"question": "2 + 2?", "choices": ["4", "5"], "answer": 0}).contexts[0]
        'Question: 2 + 2?\nAnswer:'

        Raises:
            InvalidText: says what is missing or wrong.
        """
        known = fields if isinstance(fields, dict) else {}
        choices, answer = known.get("choices"), known.get("answer")
        if not _are_texts(choices) or len(choices) < 2:
            raise InvalidText("choices must be a list of at least 2 texts")
        if type(answer) is not int or not 0 <= answer < len(choices):
            raise InvalidText(
                f"answer is {answer!r}: with {len(choices)} choices give 0 to {len(choices) - 1}"
            )
        context = known.get("context")
        if isinstance(known.get("question"), str) and context is None:
            context = f"Question: {known['question']}\nAnswer:"
        if isinstance(context, str):
            context = [context] * len(choices)
        if not _are_texts(context) or len(context) != len(choices):
            raise InvalidText(
                "context must be a text, or a list with one for each choice; or give a question"
            )
        return cls(tuple(context), tuple(choices), answer)

    @property
    def n_bytes(self) -> tuple[int, ...]:
        """Length of each choice in UTF-8."""
        return tuple(len(choice.encode()) for choice in self.choices)

    @property
    def text(self) -> str:
        """The context with the right choice."""
        return self.contexts[self.answer] + DELIMITER + self.choices[self.answer]

    def to_json(self) -> str:
        """One line of JSON that `from_fields` understands."""
        same = len(set(self.contexts)) == 1
        context = self.contexts[0] if same else list(self.contexts)
        return json.dumps(
            {"context": context, "choices": list(self.choices), "answer": self.answer},
            ensure_ascii=False,
        )


def read_items(path: Path, n: int | None = None) -> tuple[Item, ...]:
    """The items of a JSON-lines file.

    Args:
        path: of the file.
        n: how many, from the first; `None` for all.

    Raises:
        InvalidText: not there, empty, or a line that is no item; names it.
    """
    if n is not None and n < 1:
        raise InvalidText(f"{n} items of {path}: give at least 1.")
    items: list[Item] = []
    for number, line in _lines(path):
        try:
            items.append(Item.from_fields(json.loads(line)))
        except InvalidText as error:
            raise InvalidText(f"Line {number} of {path} is no item: {error}.") from error
        except (ValueError, RecursionError) as error:
            raise InvalidText(f"Line {number} of {path} is not JSON: {error}.") from error
        if len(items) == n:
            break
    if not items:
        raise InvalidText(f"{path} has no items: give one JSON object a line.")
    return tuple(items)


def digest(items: tuple[Item, ...]) -> str:
    """SHA-256 of the items, in hexadecimal."""
    return hashlib.sha256("\n".join(item.to_json() for item in items).encode()).hexdigest()


def is_utf8(text: str) -> bool:
    """Whether it has no half of a character, which JSON can spell and no text has."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(x, str) and x and is_utf8(x) for x in value)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, with their numbers."""
    with reading_text(path), path.open(encoding="utf-8", newline="\n") as file:
        yield from ((n, line) for n, line in enumerate(file, 1) if line.strip())
