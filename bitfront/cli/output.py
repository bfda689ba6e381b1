"""What commands print and write at their end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from bitfront.notes import unmeasured, widened


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


def tell_notes(checkpoint: Path) -> None:
    """Say on the standard error in what a checkpoint differs from the point that was measured."""
    if instead := unmeasured(checkpoint):
        print(
            f"The weights are not the measured ones: {instead}. bitfront.json in the folder says "
            "what each layer was meant to be.",
            file=sys.stderr,
        )
    if more := widened(checkpoint):
        print(f"{more}.", file=sys.stderr)
