"""Maps of a model, blocks x kinds: the formats of a point, the sensitivity of the layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, log10

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from bitfront.formats.base import Format
from bitfront.report.columns import number
from bitfront.report.data import ReportData
from bitfront.trial import LOSSES, Trial


@dataclass(frozen=True)
class View:
    """One thing that a map can show; every field but `label` is `[n_rows][n_blocks]`.

    Args:
        label: its entry in the selector.
        values: what colours each cell; `None` for an empty one.
        texts: what is written in each cell.
        hover: what the hover text says under the name of the layer, escaped.
    """

    label: str
    values: tuple[tuple[float | None, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    hover: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Swatch:
    """An entry of the legend: a format with its colour."""

    name: str
    colour: str
    bits_per_weight: float


def swatches(formats: Sequence[Format]) -> tuple[Swatch, ...]:
    """The menu by rising stored bits, coloured along Viridis, made for colour-blind readers too."""
    ordered = sorted(formats, key=_bits)
    positions = np.linspace(0.0, 1.0, len(ordered)).tolist() if len(ordered) > 1 else [0.5]
    colours = sample_colorscale("Viridis_r", positions)
    return tuple(Swatch(f.name, c, _bits(f)) for f, c in zip(ordered, colours, strict=True))


def _bits(format: Format) -> float:
    # Any shape that every group divides orders the menu; the map does not need exact bytes.
    return format.bits_per_weight((1024, 1024))


def bit_views(data: ReportData) -> tuple[View, ...]:
    """The chosen point, then the other points of the front."""
    others = [t for t in data.front.trials if t != data.chosen]
    return (
        _bit_view(data, data.chosen, " (chosen)"),
        *(_bit_view(data, trial, "") for trial in others),
    )


def _bit_view(data: ReportData, trial: Trial, note: str) -> View:
    order = {swatch.name: index for index, swatch in enumerate(swatches(data.space.formats))}
    bits = {f.name: f"{f.code_bits:g}" for f in data.space.formats}
    names = [trial.allocation.formats[x.name] for x in data.space.layers]
    counts = [
        [Counter(names[i] for i in cell).most_common() for cell in row] for row in data.grid.cells
    ]
    label = (
        f"trial {trial.number}: {number(trial, 'bytes', '.1f', scale=1e-6)} MB, "
        f"{number(trial, 'bits_per_weight', '.2f')} bits/weight, "
        f"{LOSSES[trial.loss_name]} {number(trial, trial.loss_name, '.3g')}{note}"
    )
    return View(
        label,
        tuple(tuple(order[c[0][0]] if c else None for c in row) for row in counts),
        tuple(tuple(bits[c[0][0]] if c else "" for c in row) for row in counts),
        tuple(tuple(_mix(c) for c in row) for row in counts),
    )


def _mix(counts: list[tuple[str, int]]) -> str:
    return ", ".join(escape(f"{n} ×{k}" if len(counts) > 1 else n) for n, k in counts)


def cell_names(data: ReportData) -> tuple[tuple[str, ...], ...]:
    """Layer name and shape of each cell for the hover text, escaped, `[n_rows][n_blocks]`."""
    return tuple(tuple(_cell_name(data, cell) for cell in row) for row in data.grid.cells)


def _cell_name(data: ReportData, cell: tuple[int, ...]) -> str:
    if not cell:
        return ""
    first = data.space.layers[cell[0]]
    name = first.name if len(cell) == 1 else f"{len(cell)} layers like {first.name}"
    return f"{escape(name)}<br>{first.shape[0]} × {first.shape[1]}"


def sensitivity_views(data: ReportData) -> tuple[View, ...]:
    """Log10 of the loss table, per weight then per layer, for each format that loses anything."""
    columns = sorted(range(len(data.space.formats)), key=lambda j: _bits(data.space.formats[j]))
    return tuple(
        _sensitivity_view(data, column, per_weight)
        for per_weight in (True, False)
        for column in columns
        if (data.loss.values[data.space.allowed[:, column], column] > 0).any()
    )


def _sensitivity_view(data: ReportData, column: int, per_weight: bool) -> View:
    cells = data.grid.cells
    losses = [[_loss(data, cell, column) for cell in row] for row in cells]
    sizes = [[sum(data.space.layers[i].n_numbers for i in cell) for cell in row] for row in cells]
    pairs = [list(zip(*rows, strict=True)) for rows in zip(losses, sizes, strict=True)]
    unit = "per weight" if per_weight else "per layer"
    return View(
        f"{data.space.formats[column].name}, {unit}",
        tuple(
            tuple(log10(x / (n if per_weight else 1)) if x > 0 else None for x, n in r)
            for r in pairs
        ),
        tuple(("",) * len(row) for row in cells),
        tuple(tuple(f"{x:.3g}, {x / n:.3g} per weight" if n else "" for x, n in r) for r in pairs),
    )


def _loss(data: ReportData, cell: tuple[int, ...], column: int) -> float:
    rows = [i for i in cell if data.space.allowed[i, column]]
    combine = sum if data.loss.reduction == "sum" else max
    return float(combine(data.loss.values[rows, column])) if rows else 0.0


def bit_map_figure(data: ReportData) -> go.Figure:
    """Blocks x kinds coloured by the format of the chosen point, its code bits in each cell."""
    palette = swatches(data.space.formats)
    edges = np.linspace(0.0, 1.0, len(palette) + 1).repeat(2)[1:-1].tolist()
    colours = [swatch.colour for swatch in palette for _ in range(2)]
    return _map_figure(
        data,
        bit_views(data)[0],
        colorscale=list(zip(edges, colours, strict=True)),
        zmin=-0.5,
        zmax=len(palette) - 0.5,
        showscale=False,
    )


def sensitivity_figure(data: ReportData) -> go.Figure | None:
    """Blocks x kinds coloured by log10 of the estimated loss; `None` when no entry is positive."""
    views = sensitivity_views(data)
    if not views:
        return None
    bar = {"title": {"text": "log₁₀"}, "thickness": 12}
    return _map_figure(data, views[0], colorscale="Inferno", colorbar=bar)


def _map_figure(data: ReportData, view: View, **colours: object) -> go.Figure:
    heat = go.Heatmap(
        z=view.values,
        text=view.texts,
        texttemplate="%{text}" if len(data.grid.blocks) <= 48 else None,
        customdata=[
            list(zip(*row, strict=True)) for row in zip(cell_names(data), view.hover, strict=True)
        ],
        hovertemplate="%{customdata[0]}<br><b>%{customdata[1]}</b><extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
        **colours,
    )
    step = ceil(len(data.grid.blocks) / 18)
    shown = [i for i, block in enumerate(data.grid.blocks) if i % step == 0 or block < 0]
    figure = go.Figure(heat)
    figure.update_xaxes(
        title_text="block", tickvals=shown, ticktext=[data.grid.columns[i] for i in shown]
    )
    figure.update_yaxes(
        tickvals=list(range(len(data.grid.rows))),
        ticktext=[f"{escape(row)} " for row in data.grid.rows],
        autorange="reversed",
        automargin=True,
    )
    figure.update_xaxes(showgrid=False, zeroline=False, fixedrange=True)
    figure.update_yaxes(showgrid=False, zeroline=False, fixedrange=True)
    margin = {"l": 8, "r": 8, "t": 8, "b": 44}
    return figure.update_layout(
        template="none", height=80 + 26 * len(data.grid.rows), margin=margin
    )
