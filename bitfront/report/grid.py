"""Grid: the layers of a model laid out as blocks x kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bitfront.space import Layer


@dataclass(frozen=True)
class Grid:
    """Where each layer stands on a map of the model.

    Rows are kinds of layers, columns are blocks, and a last column holds what lies outside them.
    A cell may hold many layers (the experts of a block) or none.

    Args:
        rows: labels of the kinds, in order of first appearance.
        blocks: block indices, -1 last.
        cells: indices of the layers in each cell, `[n_rows][n_blocks]`.
    """

    rows: tuple[str, ...]
    blocks: tuple[int, ...]
    cells: tuple[tuple[tuple[int, ...], ...], ...]

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> Grid:
        """Lay out the layers of a model."""
        kinds = _kinds(layers)
        rows = tuple(dict.fromkeys(kinds))
        blocks = tuple(sorted({x.block for x in layers}, key=lambda b: (b < 0, b)))
        members: dict[tuple[str, int], list[int]] = {}
        for index, (layer, kind) in enumerate(zip(layers, kinds, strict=True)):
            members.setdefault((kind, layer.block), []).append(index)
        cells = tuple(tuple(tuple(members.get((r, b), ())) for b in blocks) for r in rows)
        return cls(rows, blocks, cells)

    @property
    def columns(self) -> tuple[str, ...]:
        """Labels of the blocks; `"none"` for layers outside them."""
        return tuple("none" if b < 0 else str(b) for b in self.blocks)


def _kinds(layers: Sequence[Layer]) -> list[str]:
    """What each layer does in its block: the last part of its name, more where that is unclear.

    GPT-2 has `attn.c_proj` and `mlp.c_proj` in one block; the experts of a block fold into
    `mlp.experts.*.gate_proj`.
    """
    paths = [_path(layer) for layer in layers]
    sharing = Counter(path.rpartition(".")[2] for path in set(paths))
    return [
        path if sharing[path.rpartition(".")[2]] > 1 else path.rpartition(".")[2] for path in paths
    ]


def _path(layer: Layer) -> str:
    """Name inside the block with indices folded; models of two towers keep the tower's name."""
    if layer.block < 0:
        return layer.name
    head, _, tail = layer.name.partition(f".{layer.block}.")
    tower = next((p for p in head.split(".") if p in {"encoder", "decoder"}), None)
    folded = ".".join("*" if part.isdigit() else part for part in tail.split("."))
    return f"{tower}.{folded}" if tower else folded
