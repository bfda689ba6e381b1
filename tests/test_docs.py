"""Generated pages are those the code would generate now."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_choosing_page_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "choosing.py"))["page"]()
    assert (ROOT / "docs" / "choosing.md").read_text() == page, "run `make docs`"
