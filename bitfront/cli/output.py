"""What commands print and write at their end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from bitfront.notes import unmeasured, widened
from bitfront.trial import BOTH, LOSSES, Trial, loss_unit


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


def tell_requantized(quantizer: str, before: Trial, after: Trial) -> None:
    """Say on the standard error what a point lost before it was quantized again, and loses now.

    Args:
        quantizer: that it was quantized again by.
        before: the point as the search measured it.
        after: the same with the values of the new weights.
    """
    title = "KL of both texts" if BOTH in after.values else LOSSES[after.loss_name]
    unit = loss_unit(after.values)
    print(
        f"{quantizer}: {title} was {before.goal:.4g}, is {after.goal:.4g} {unit} "
        f"on the {after.text} text.",
        file=sys.stderr,
    )
    if not after.goal < before.goal:
        print(
            "That is no gain: export without --requantize for the weights that were measured.",
            file=sys.stderr,
        )
