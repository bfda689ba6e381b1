"""Generated pages are those the code would generate now."""

import inspect
import re
import runpy
from collections import Counter
from pathlib import Path

import pytest

from bitfront.cli.plugins import plugin_kinds

ROOT = Path(__file__).parent.parent
PAGE = runpy.run_path(str(ROOT / "docs" / "choosing.py"))["page"]()
PLUGINS = [
    pytest.param(folder.load(name), id=f"{kind}-{name}")
    for kind, folder in plugin_kinds().items()
    if kind in {"estimator", "search", "solver"}
    for name in folder.names()
]


def test_choosing_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "choosing.md").read_text() == PAGE, "run `make docs`"


def test_tables_of_measurements_are_those_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    filled = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))["filled"]
    page = (ROOT / "docs" / "measurements.md").read_text()
    assert page.count("<!-- table: ") >= 5
    assert page == filled(page), "run `make docs`"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_docstring_says_cost_preference_and_source(plugin: type) -> None:
    text = (inspect.getdoc(plugin) or "").partition("\nArgs:\n")[0]
    paragraphs = re.split(r"\n\n+", text)
    for begin in (r"Cost: \S", r"Prefer it:? \S", r"Source: \S"):
        found = [each for each in paragraphs if re.match(begin, each)]
        assert len(found) == 1, f"give {plugin.__name__} one paragraph that begins with {begin!r}"


def test_every_row_of_the_choosing_page_is_full_and_leads_to_its_section() -> None:
    section, n_seen = "", Counter[str]()
    headings, rows = set(), []
    for line in PAGE.splitlines():
        if heading := re.match(r"#+ `?(.+?)`?$", line):
            text = heading[1].lower()
            # As GitHub does: later headings of the same text count up.
            address = f"{text}-{n_seen[text]}" if n_seen[text] else text
            n_seen[text] += 1
            section = text if line.startswith("## ") else section
            headings.add((section, text, address))
        if row := re.match(r"\| \[`(.+)`\]\(#(.+?)\) \| (.+) \|$", line):
            rows.append((section, row[1], row[2]))
            cells = re.split(r" (?<!\\)\| ", row[3])
            assert all(cells)
            assert len(cells) == 4
    assert len(rows) == len(PLUGINS)
    assert set(rows) <= headings


def test_every_exporter_has_its_row_on_the_page_of_exports() -> None:
    text = (ROOT / "docs" / "exports.md").read_text()
    rows = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert rows == set(plugin_kinds()["exporter"].names())
