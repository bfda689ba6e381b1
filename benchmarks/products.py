"""The matrix products of Llama-3-8B that kernels are timed on: bytes, floors, weight sets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bitfront import formats

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)
FORMATS = (
    *("int2_g128_sym", "int3_g128_sym", "int4_g128_sym", "int5_g128_sym", "int6_g128_sym"),
    *("int8_g128_sym", "int4_g128", "nf4_g64", "mxfp4", "bf16"),
)
CACHE_BYTES = 60e6
"""Of an H200's L2 (50 MB), with room to spare."""

MIN_SETS, MIN_LAUNCHES = 3, 20


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


def n_sets(n_bytes: int) -> int:
    """Copies of a weight in turn, so that none is still in the cache when it comes again.

    >>> n_sets(8_650_752), n_sets(10**9)
    (28, 3)
    """
    return max(MIN_SETS, math.ceil(4 * CACHE_BYTES / n_bytes))


@dataclass(frozen=True)
class Stack:
    """All linear layers of Llama-3-8B in the order they run: four products a block, and the head.

    Args:
        bits: of the codes of every layer; None for a mix of 2, 3 and 4 bits that averages 3.25.
        n_blocks: decoder blocks.
    """

    bits: int | None = None
    n_blocks: int = 32

    def layers(self) -> Iterator[tuple[Shape, tuple[str, ...]]]:
        """Shapes with the format of each part; the head in 8 bits."""
        for block in range(self.n_blocks):
            for name, mixed in _mix(block).items():
                shape = SHAPE[name]
                widths = mixed if self.bits is None else (self.bits,) * len(shape.parts)
                yield shape, tuple(f"int{bits}_g128_sym" for bits in widths)
        yield SHAPE["lm_head"], ("int8_g128_sym",)

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


def _mix(block: int) -> dict[str, tuple[int, ...]]:
    """Widths of a block's parts, as searches choose them: few bits for k, more for v and the MLP.

    One block of sixteen has no 4 bits in its MLP, or the average would be 3.27.
    """
    spared, even = block % 16 == 15, block % 2 == 0
    up, down = (3, 3) if spared else ((4, 3) if even else (3, 4))
    return {"q+k+v": (3, 2, 4), "o": (3,), "gate+up": (3, up), "down": (down,)}
