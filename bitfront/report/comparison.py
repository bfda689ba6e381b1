"""A comparison of estimators as a table for the terminal and as an HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import plotly.graph_objects as go
from rich.box import SIMPLE_HEAD
from rich.markup import escape as escape_markup
from rich.table import Table

from bitfront.files import replacing

_COLOURS = {"all": "#2a8fd0", "2_to_3": "#e0701a", "3_to_4": "#12a583", "4_to_6": "#8c8c8c"}
_SYMBOLS = {"all": "circle", "2_to_3": "square", "3_to_4": "diamond", "4_to_6": "cross"}


@dataclass(frozen=True)
class Compared:
    """One estimator in a comparison.

    Args:
        estimator: name with parameters.
        tau: Kendall's tau of predicted against measured KL, over all allocations (`"all"`) and over
            those of each range of bits (`"2_to_3"`); `None` where no order exists.
        seconds: of its pass, in full where it shares it, and of its own work; what several derive
            from the pass alike counts for the first of them.
        peak_mb: how far memory rose in the pass, all who share it together: of the GPU where the
            model is on one, else of the process; `None` where the system does not say.
        shared: who else had the same pass.
        note: what the estimator found besides: a formula, standard errors.
        error: why it has no table; then nothing above is known.
    """

    estimator: str
    tau: Mapping[str, float | None] = field(default_factory=dict)
    seconds: float | None = None
    peak_mb: float | None = None
    shared: tuple[str, ...] = ()
    note: str = ""
    error: str | None = None


def comparison_table(rows: Sequence[Compared]) -> Table:
    """One row an estimator, the best first; a star where the pass was shared."""
    table = Table(
        title="Kendall's tau of predicted against measured KL",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        caption="seconds: a pass that several share counts in full for each, what they derive "
        "from it alike for the first\n* memory of all that share the pass",
        caption_justify="left",
    )
    table.add_column("estimator", overflow="fold")
    for title in ("all", "2-3 bits", "3-4", "4-6", "seconds", "peak MB"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        name = escape_markup(row.estimator)
        if row.error:
            table.add_row(f"{name}: {escape_markup(row.error)}", *["–"] * 6)
            continue
        star = "*" if row.shared else ""
        values = [_number(row.tau.get(key), 3) for key in _COLOURS]
        table.add_row(name, *values, _number(row.seconds, 1), _number(row.peak_mb, 0) + star)
    return table


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def write_comparison(path: Path, title: str, rows: Sequence[Compared]) -> None:
    """Write a self-contained page with the chart.

    Raises:
        StorageError: the file could not be written.
    """
    figure = comparison_figure(rows).update_layout(title=escape(f"{title}: estimators"))
    page = figure.to_html(include_plotlyjs=True, full_html=True, div_id="comparison")
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def comparison_figure(rows: Sequence[Compared]) -> go.Figure:
    """Tau by estimator, the best at the top, one mark for each range of bits."""
    shown = [row for row in reversed(rows) if not row.error]
    figure = go.Figure()
    for key, colour in _COLOURS.items():
        figure.add_trace(
            go.Scatter(
                x=[row.tau.get(key) for row in shown],
                y=[escape(row.estimator) for row in shown],
                mode="markers",
                name=key.replace("_", " ") + ("" if key == "all" else " bits"),
                marker={"color": colour, "symbol": _SYMBOLS[key], "size": 11},
                customdata=[[_number(r.seconds, 1), _number(r.peak_mb, 0)] for r in shown],
                hovertemplate="%{y}: tau %{x:.3f}, %{customdata[0]} s, %{customdata[1]} MB",
            )
        )
    figure.update_xaxes(title_text="Kendall's tau of predicted against measured KL")
    return figure.update_layout(height=140 + 26 * len(shown), template="plotly_white")
