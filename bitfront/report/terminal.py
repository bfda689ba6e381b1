"""The front as a table for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from bitfront.pareto import ParetoFront
from bitfront.report.columns import COLUMNS
from bitfront.trial import Trial


def front_table(front: ParetoFront, chosen: Trial | None = None) -> Table:
    """One row a point in the order of the front; the chosen one marked and bold."""
    title = "Measured front (evaluation text)"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    for column in COLUMNS:
        left = column.title == "origin"
        table.add_column(column.title, justify="left" if left else "right", no_wrap=True)
    for trial in front.trials:
        mark = trial == chosen
        texts = (escape(column.text(trial)) for column in COLUMNS)
        table.add_row("→" if mark else "", *texts, style="bold" if mark else None)
    return table
