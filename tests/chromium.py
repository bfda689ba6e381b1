"""The browser that pages are tested in; `make test-ui` installs it."""

import shutil
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    f"--{name}"
    for name in (
        "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-component-update",
        "disable-background-networking", "disable-sync",
    )
]  # fmt: skip
needs_chromium = pytest.mark.skipif(
    not Path(CHROMIUM).exists(), reason="no chromium on this machine: run `make test-ui` as root"
)
