"""The matrix products of Llama-3-8B that kernels are timed on: bytes, floors, weight sets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bitfront import formats

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)
FORMATS = (
    *("int2_g128_sym", "int3_g128_sym", "int4_g128_sym", "int5_g128_sym", "int6_g128_sym"),
    *("int8_g128_sym", "int4_g128", "nf4_g64", "mxfp4", "bf16"),
)


@dataclass(frozen=True)
class Shape:
    """One weight, or several that read the same input.

    Args:
        name: as models call it; parts of a fused one are joined by `+`.
        parts: rows of each.
        n_columns: inputs.
    """

    name: str
    parts: tuple[int, ...]
    n_columns: int

    @property
    def n_rows(self) -> int:
        """Outputs."""
        return sum(self.parts)


SHAPES = (
    Shape("k", (1024,), 4096),
    Shape("o", (4096,), 4096),
    Shape("q+k+v", (4096, 1024, 1024), 4096),
    Shape("gate", (14336,), 4096),
    Shape("gate+up", (14336, 14336), 4096),
    Shape("down", (4096,), 14336),
    Shape("lm_head", (128256,), 4096),
)
SHAPE = {shape.name: shape for shape in SHAPES}
PARTS = {
    "q+k+v": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate+up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""Products of a block with the layers that each is of."""

SEARCHED = Path(__file__).with_name("searched_mix.json")
"""Bits by layer and block that a search chose (`mix.py`)."""

MIXES = (("q+k+v", (4, 2, 3)), ("gate+up", (3, 4)))
"""Fused shapes with the bits of each part."""


@dataclass(frozen=True)
class Ceiling:
    """What the device was measured to do.

    Args:
        read: bytes a second of a kernel that only reads.
        compute: bf16 operations a second of a large product.
        launch: seconds of an empty kernel within a graph.
    """

    read: float
    compute: float
    launch: float

    def floor(self, shape: Shape, n_bytes: int, batch: int) -> float:
        """Seconds that a product takes at least.

        Args:
            shape: of the weight.
            n_bytes: stored bytes of the weight.
            batch: rows of the input.
        """
        operations = 2 * batch * shape.n_rows * shape.n_columns
        return max(moved_bytes(shape, n_bytes, batch) / self.read, operations / self.compute)


def moved_bytes(shape: Shape, n_bytes: int, batch: int) -> int:
    """Bytes that a product must move: the weight, 16-bit inputs and outputs."""
    return n_bytes + 2 * batch * (shape.n_rows + shape.n_columns)


def stored_bytes(shape: Shape, names: Sequence[str]) -> int:
    """Bytes of the parts of a shape in the formats of these names.

    >>> stored_bytes(SHAPE["o"], ("int4_g128_sym",)) / 2**20
    8.25
    """
    parts = zip(shape.parts, names, strict=True)
    return sum(formats.named(name).nbytes((rows, shape.n_columns)) for rows, name in parts)


@dataclass(frozen=True)
class Stack:
    """All linear layers of Llama-3-8B in the order they run: four products a block, and the head.

    Args:
        bits: of the codes of every layer, 16 for plain bf16; `None` for a searched mix.
        n_blocks: decoder blocks.
    """

    bits: int | None = None
    n_blocks: int = 32

    def layers(self) -> Iterator[tuple[Shape, tuple[str, ...]]]:
        """Shapes with the format of each part; the head of packed ones in 8 bits."""
        for block in range(self.n_blocks):
            for name, parts in PARTS.items():
                widths = (
                    tuple(searched_bits(part, block, self.n_blocks) for part in parts)
                    if self.bits is None
                    else (self.bits,) * len(parts)
                )
                yield SHAPE[name], tuple(map(_named, widths))
        yield SHAPE["lm_head"], (_named(16 if self.bits == 16 else 8),)

    @property
    def average(self) -> float:
        """Bits of a code of the blocks, head apart."""
        parts = [
            (formats.named(name).num_bits, rows * shape.n_columns)
            for shape, names in self.layers()
            for name, rows in zip(names, shape.parts, strict=True)
        ][:-1]
        return sum(bits * n for bits, n in parts) / sum(n for _, n in parts)

    @property
    def n_bytes(self) -> int:
        """Stored bytes of all of it."""
        return sum(stored_bytes(shape, names) for shape, names in self.layers())

    def floor(self, ceiling: Ceiling, batch: int = 1) -> float:
        """Seconds that one step takes at least."""
        return sum(
            ceiling.floor(shape, stored_bytes(shape, names), batch)
            for shape, names in self.layers()
        )


def searched_bits(part: str, block: int, n_blocks: int) -> int:
    """Bits that a search gave this part of a block, at the same depth of the model it searched.

    >>> searched_bits("self_attn.v_proj", 31, 32) == searched_bits("self_attn.v_proj", 29, 30)
    True
    """
    bits: str = _searched()["bits"][part]
    return int(bits[int((block + 0.5) / n_blocks * len(bits))])


@cache
def _searched() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(SEARCHED.read_text())
    return made


def _named(bits: int) -> str:
    return "bf16" if bits == 16 else f"int{bits}_g128_sym"
