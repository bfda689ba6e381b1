"""A comparison of estimators as a table for the terminal and as an HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Protocol

import plotly.graph_objects as go
from rich.box import SIMPLE_HEAD
from rich.markup import escape as escape_markup
from rich.table import Table

from bitfront.files import replacing

_COLOURS = {"all": "#2a8fd0", "2_to_3": "#e0701a", "3_to_4": "#12a583", "4_to_6": "#8c8c8c"}
_SYMBOLS = {"all": "circle", "2_to_3": "square", "3_to_4": "diamond", "4_to_6": "cross"}


class Row(Protocol):
    """What is shown of one estimator: see `bitfront.compare.Compared`."""

    @property
    def estimator(self) -> str:
        """Name with parameters."""

    @property
    def tau(self) -> Mapping[str, float | None]:
        """By range of bits."""

    @property
    def seconds(self) -> float | None:
        """Alone."""

    @property
    def peak_mb(self) -> float | None:
        """Of the pass."""

    @property
    def shared(self) -> tuple[str, ...]:
        """Who else had the pass."""

    @property
    def error(self) -> str | None:
        """Why there is nothing else."""


def comparison_table(rows: Sequence[Row]) -> Table:
    """One row an estimator, the best first; a star where the pass was shared."""
    table = Table(
        title="Kendall's tau of predicted against measured KL",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        caption="* memory of a pass that several share; seconds as if alone",
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


def write_comparison(path: Path, title: str, rows: Sequence[Row]) -> None:
    """Write a self-contained page with the chart.

    Raises:
        StorageError: the file could not be written.
    """
    figure = comparison_figure(rows).update_layout(title=escape(f"{title}: estimators"))
    page = figure.to_html(include_plotlyjs=True, full_html=True, div_id="comparison")
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def comparison_figure(rows: Sequence[Row]) -> go.Figure:
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
