"""Maps of a model, blocks x kinds, as cells of a table with one class a colour."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bitfront.formats.base import Format
from bitfront.report.grid import Grid
from bitfront.space import SearchSpace
from bitfront.table import LayerTable
from bitfront.trial import Trial

N_STEPS = 40
"""Colours along a scale, less one; a style sheet holds them, for inline styles are not allowed."""
MAX_ROWS, MAX_COLUMNS = 200, 400
_Drawn = Callable[[tuple[int, ...]], "Cell"]


@dataclass(frozen=True)
class Cell:
    """A place on a map.

    Args:
        style: class of its colour; empty where no layer is.
        text: what is written in it.
        title: what it is, in words.
    """

    style: str = ""
    text: str = ""
    title: str = ""


@dataclass(frozen=True)
class LayerMap:
    """A map of the model.

    Args:
        columns: labels of the blocks.
        rows: kinds of layers with their cells.
        n_left_out: rows and columns that a page has no room for.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    n_left_out: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Swatch:
    """A format with its colour.

    Args:
        name: of the format.
        style: class of its colour.
        bits: stored bits per weight of a large matrix.
    """

    name: str
    style: str
    bits: float


def swatches(formats: Sequence[Format]) -> tuple[Swatch, ...]:
    """The menu by rising stored bits along Viridis, as in the report of a study."""
    ordered = sorted(formats, key=_bits)
    last = max(len(ordered) - 1, 1)
    steps = [
        round(N_STEPS * i / last) if len(ordered) > 1 else N_STEPS // 2 for i in range(len(ordered))
    ]
    return tuple(Swatch(f.name, f"v{s}", _bits(f)) for f, s in zip(ordered, steps, strict=True))


def _bits(format: Format) -> float:
    return format.bits_per_weight((1024, 1024))


def bit_map(space: SearchSpace, trial: Trial) -> LayerMap:
    """The format of each layer; where a cell holds several layers, that of most of them."""
    styles = {swatch.name: swatch.style for swatch in swatches(space.formats)}
    bits = {f.name: f"{f.code_bits:g}" for f in space.formats}
    names = [trial.allocation.formats[x.name] for x in space.layers]

    def cell(indices: tuple[int, ...]) -> Cell:
        if not indices:
            return Cell()
        counts = Counter(names[i] for i in indices).most_common()
        first = counts[0][0]
        mix = ", ".join(f"{name} ×{n}" if len(counts) > 1 else name for name, n in counts)
        return Cell(styles[first], bits[first], f"{_layer_name(space, indices)}: {mix}")

    return _laid_out(space, cell)


def sensitivity_map(table: LayerTable, column: int, per_weight: bool) -> tuple[LayerMap, str]:
    """Estimated loss of each layer in one format along Inferno, and the range it spans in words."""
    space = table.space
    grid = _grid(space)
    losses = {cell: _loss(table, cell, column) for row in grid.cells for cell in row if cell}
    if per_weight:
        losses = {c: x / sum(space.layers[i].n_numbers for i in c) for c, x in losses.items()}
    logs = {cell: math.log10(x) for cell, x in losses.items() if x > 0}
    low, high = min(logs.values(), default=0.0), max(logs.values(), default=0.0)
    width = (high - low) or 1.0

    def cell(indices: tuple[int, ...]) -> Cell:
        if not indices:
            return Cell()
        title = f"{_layer_name(space, indices)}: {losses[indices]:.3g}"
        if indices not in logs:
            return Cell("none", "", title)
        return Cell(f"s{round(N_STEPS * (logs[indices] - low) / width)}", "", title)

    span = f"{10**low:.2g} to {10**high:.2g}" if logs else ""
    return _laid_out(space, cell), span


def sensitive_columns(table: LayerTable) -> tuple[int, ...]:
    """Formats of the menu that lose anything, by rising stored bits."""
    ordered = sorted(range(len(table.space.formats)), key=lambda j: _bits(table.space.formats[j]))
    return tuple(j for j in ordered if (table.values[table.space.allowed[:, j], j] > 0).any())


def _loss(table: LayerTable, cell: tuple[int, ...], column: int) -> float:
    rows = [i for i in cell if table.space.allowed[i, column]]
    combine = np.sum if table.reduction == "sum" else np.max
    return float(combine(table.values[rows, column])) if rows else 0.0


def _layer_name(space: SearchSpace, indices: tuple[int, ...]) -> str:
    first = space.layers[indices[0]]
    name = first.name if len(indices) == 1 else f"{len(indices)} layers like {first.name}"
    return f"{name}, {first.shape[0]} × {first.shape[1]}"


def _grid(space: SearchSpace) -> Grid:
    return Grid.of(space.layers)


def _laid_out(space: SearchSpace, cell: _Drawn) -> LayerMap:
    grid = _grid(space)
    rows = tuple(
        (kind, tuple(cell(indices) for indices in cells[:MAX_COLUMNS]))
        for kind, cells in list(zip(grid.rows, grid.cells, strict=True))[:MAX_ROWS]
    )
    left = max(len(grid.rows) - MAX_ROWS, 0), max(len(grid.columns) - MAX_COLUMNS, 0)
    return LayerMap(grid.columns[:MAX_COLUMNS], rows, left)
