"""What commands print and write at their end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console


def print_line(console: Console, text: str) -> None:
    """Print a line as it is, however long."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_note(console: Console, estimator: str, note: str) -> None:
    """Print what an estimator has to say about its table, if anything."""
    if note:
        print_line(console, f"{estimator}: {note}")


def written_report(out: Path, data: Any) -> Path:
    """Write the page of a results folder; returns its whole path."""
    from bitfront.report.page import write_report

    write_report(out / "report.html", data)
    return (out / "report.html").resolve()


def tell_rounded(checkpoint: Path) -> None:
    """Say on the standard error how many layers an exporter had to round anew, if any."""
    path = checkpoint / "bitfront.json"
    made = json.loads(path.read_text()) if path.exists() else {}
    if anew := made.get("rounded_anew"):
        kinds = ", ".join(sorted(set(anew.values())))
        print(
            f"{len(anew)} of {len(made['formats'])} layers were rounded anew, to {kinds}: "
            "the loss is not the measured one; bitfront.json in the folder lists them.",
            file=sys.stderr,
        )
