"""Grid: the layers of a model laid out as blocks x kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitfront.space import Layer


@dataclass(frozen=True)
class Grid:
    """Where each layer stands on a map of the model.

    Rows are kinds of layers, columns are blocks, and a last column holds what lies outside them.
    A cell may hold many layers (the experts of a block) or none.

    Args:
        rows: the kinds, in order of first appearance.
        blocks: block indices, -1 last.
        cells: indices of the layers in each cell, `[n_rows][n_blocks]`.
    """

    rows: tuple[str, ...]
    blocks: tuple[int, ...]
    cells: tuple[tuple[tuple[int, ...], ...], ...]

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> Grid:
        """Lay out the layers of a model."""
        rows = tuple(dict.fromkeys(x.kind for x in layers))
        blocks = tuple(sorted({x.block for x in layers}, key=lambda b: (b < 0, b)))
        members: dict[tuple[str, int], list[int]] = {}
        for index, layer in enumerate(layers):
            members.setdefault((layer.kind, layer.block), []).append(index)
        cells = tuple(tuple(tuple(members.get((r, b), ())) for b in blocks) for r in rows)
        return cls(rows, blocks, cells)

    @property
    def columns(self) -> tuple[str, ...]:
        """Labels of the blocks; `"none"` for layers outside them."""
        return tuple("none" if b < 0 else str(b) for b in self.blocks)
