"""The front as a table for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from bitfront.pareto import ParetoFront
from bitfront.report.columns import columns_of
from bitfront.trial import Trial


def front_table(front: ParetoFront, chosen: Trial | None = None) -> Table:
    """One row a point in the order of the front; the chosen one marked and bold.

    At most 80 columns wide, whatever was measured, where names of searches have up to 13 letters.
    """
    title = "Measured front (evaluation text)"
    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False
    )
    columns = columns_of(front.trials, narrow=True)
    for column in columns:
        left = column.title == "origin"
        heading = column.short or column.title
        # The origin gives way where room is scarce: a clipped number would be another number.
        table.add_column(heading, justify="left" if left else "right", no_wrap=not left)
    for trial in front.trials:
        mark = trial == chosen
        first, *texts = (escape(column.text(trial)) for column in columns)
        table.add_row(f"→ {first}" if mark else first, *texts, style="bold" if mark else None)
    return table
