"""A weight as a matrix of blocks, each in its own format, and what the Triton kernels see of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from bitfront import formats, packing
from bitfront.errors import InvalidArgument
from bitfront.formats._elements import E4m3, Float4, Integers
from bitfront.formats.base import Format
from bitfront.formats.int_grouped import IntGrouped
from bitfront.formats.lut import Lut

if TYPE_CHECKING:
    import torch

# As in `_codes`, which cannot be imported without triton.
_INTEGER, _TABLE, _E2M1, _E4M3, _ROW_TABLE = range(5)
_SCALES = {"float16": 0, "float32": 0, "uint8": 1, "float8_e4m3fn": 2}


@dataclass(frozen=True)
class Block:
    """One rectangle of a weight in one format.

    Args:
        format: not `bf16`.
        shape: rows and columns.
    """

    format: Format
    shape: tuple[int, int]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Stored tensors in order."""
        return tuple(self.format.stored(self.shape))

    @cached_property
    def compiled(self) -> tuple[Any, ...]:
        """Compile-time numbers (KIND, OFFSET, GROUP, SCALE, PLANES), see `_codes`."""
        scale = self.format.stored_qparams(self.shape).get("scale")
        group = self.format.group_columns or 0
        kind = _SCALES[scale.dtype] if scale else 0
        return _kind(self.format), self._offset, group, kind, self._planes

    @property
    def _offset(self) -> int:
        return -self.format.first if isinstance(self.format, Integers) else 0

    @property
    def _planes(self) -> tuple[tuple[int, int, int], ...]:
        if _kind(self.format) == _E4M3:
            return ((8, 1, 1),)
        columns = self.shape[1]
        strides = {
            w: packing.stride(columns, w) for w in packing.plane_widths(self.format.num_bits)
        }
        return tuple((w, s, packing.CONTAINER_BITS // w * s) for w, s in strides.items())

    @cached_property
    def has_words(self) -> bool:
        """Whether containers can be read as whole int32, all that a lane needs in one of them."""
        if _kind(self.format) == _E4M3:
            return self.shape[1] % 4 == 0
        return all(stride % 2 == 0 for _, stride, _ in self._planes)

    @cached_property
    def run_columns(self) -> int:
        """Neighbouring containers whose codes are of neighbouring columns and share a scale."""
        run = self.shape[1] if _kind(self.format) == _E4M3 else self._planes[0][1]
        return min(run, self.format.group_columns or run)

    @cached_property
    def looks_up(self) -> bool:
        """Whether levels come from a table."""
        return _kind(self.format) in (_TABLE, _ROW_TABLE)

    @cached_property
    def suits_tiles(self) -> bool:
        """Whether `gemm` takes fewer instructions for a weight than `gemv`, even for one token.

        So it is where a tile of 32 containers is one run in every plane, for codes of several
        planes, whose narrower words last for many tiles, and for e2m1.
        """
        several = len(self._planes) > 1 or _kind(self.format) == _E2M1
        runs = self.run_columns >= 32 and all(stride == 32 for _, stride, _ in self._planes)
        return several and runs and not self.looks_up

    @cached_property
    def n_live(self) -> int:
        """Numbers that `gemv` holds for a row while it goes over the fields of a word, roughly.

        Its fields, times the scales and zero points that they need, times the planes: 32 for
        integers of 2 bits with zero points in groups of 128, 64 in groups of 64.
        """
        width, _, superblock = self._planes[-1]
        n_fields = packing.CONTAINER_BITS // width
        n_scales = min(n_fields, -(-superblock // (self.format.group_columns or superblock)))
        has_zero = isinstance(self.format, IntGrouped) and not self.format.symmetric
        return n_fields * n_scales * (1 + has_zero) * len(self._planes)

    def strides(self, word_bits: int) -> tuple[int, int, int, int]:
        """Words to a row of each plane, 0 for planes it lacks, and scales to a row.

        Args:
            word_bits: 32, or 16 for single containers, which are a byte in fp8.
        """
        n_groups = self.shape[1] // (self.format.group_columns or self.shape[1])
        if _kind(self.format) == _E4M3:
            return self.shape[1] // (4 if word_bits == 32 else 1), 0, 0, n_groups
        padded = packing.padded_columns(self.shape[1])
        words = [padded * width // word_bits for width, _, _ in self._planes] + [0, 0]
        return words[0], words[1], words[2], n_groups

    def arrays(
        self, tensors: Sequence[torch.Tensor], table: torch.dtype | None = None
    ) -> tuple[torch.Tensor | None, ...]:
        """Pointers of the block, see `_codes`.

        Args:
            tensors: stored, in the order of `names`.
            table: dtype of the levels, where they are looked up; float32 by default.
        """
        import torch

        named = dict(zip(self.names, tensors, strict=True))
        planes = [t for name, t in named.items() if name.startswith("codes") or name == "weight"]
        scale = named.get("scale")
        if scale is None:
            scale = _ones(self.shape[0], planes[0].device)
        extra = named.get("table", named.get("global_scale"))
        if _kind(self.format) == _TABLE:
            extra = _table(self.format, scale.device, table or torch.float32)
        if planes[0].dtype == torch.float8_e4m3fn:
            planes = [planes[0].view(torch.uint8)]
        if scale.dtype == torch.float8_e4m3fn:
            scale = scale.view(torch.uint8)
        planes += [None] * (3 - len(planes))  # type: ignore[list-item]
        return (*planes, scale, named.get("zero_point"), extra)

    def decoded(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Float32 values of the block, by its format; `tensors` in the order of `names`."""
        return self.format.decode_stored(dict(zip(self.names, tensors, strict=True)), self.shape)


@dataclass(frozen=True)
class BlockMatrix:
    """A weight `[sum of n_rows, sum of n_columns]` cut into segments of rows and parts of columns.

    Args:
        n_rows: of each segment, such as q, k and v.
        n_columns: of each part; every segment is cut at the same columns.
        formats: name of the format of each block, segment by segment.

    Raises:
        InvalidArgument: another number of formats than of blocks, or one that does not fit.
    """

    n_rows: tuple[int, ...]
    n_columns: tuple[int, ...]
    formats: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.formats) != len(self.n_rows) * len(self.n_columns) or not self.formats:
            raise InvalidArgument(
                f"{len(self.formats)} formats for {len(self.n_rows)} segments of rows and "
                f"{len(self.n_columns)} parts of columns: give one for each block, row by row."
            )
        if any(columns % packing.CONTAINER_BITS for columns in self.n_columns[:-1]):
            raise InvalidArgument(
                f"Parts of {self.n_columns} columns: all but the last must be multiples of 16."
            )
        for block in self:
            if not block.format.scaled or not block.format.fits(block.shape):
                raise InvalidArgument(
                    f"{block.format.name} cannot be multiplied packed at {block.shape}: give a "
                    "format with scales whose group size divides the columns."
                )

    @cached_property
    def blocks(self) -> tuple[tuple[Block, ...], ...]:
        """Blocks `[segment][part]`."""
        names = iter(self.formats)
        return tuple(
            tuple(Block(formats.named(next(names)), (rows, columns)) for columns in self.n_columns)
            for rows in self.n_rows
        )

    def __iter__(self) -> Iterator[Block]:
        return (block for segment in self.blocks for block in segment)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the whole weight."""
        return sum(self.n_rows), sum(self.n_columns)

    @cached_property
    def first_columns(self) -> tuple[int, ...]:
        """Column that each part begins at."""
        return (0, *accumulate(self.n_columns))[:-1]

    def split(self, tensors: Sequence[torch.Tensor]) -> list[list[list[torch.Tensor]]]:
        """Stored tensors `[segment][part][name]` of a flat list in the same order.

        Raises:
            InvalidArgument: not the number of tensors that the formats store.
        """
        n_wanted = sum(len(block.names) for block in self)
        if len(tensors) != n_wanted:
            raise InvalidArgument(
                f"{len(tensors)} tensors for {', '.join(self.formats)}: give {n_wanted}, "
                "those of Format.stored, block by block."
            )
        rest = iter(tensors)
        return [[[next(rest) for _ in block.names] for block in segment] for segment in self.blocks]


@lru_cache(4096)
def block_matrix(
    n_rows: tuple[int, ...], n_columns: tuple[int, ...], formats: tuple[str, ...]
) -> BlockMatrix:
    """The matrix of these cuts, described once."""
    return BlockMatrix(n_rows, n_columns, formats)


def has_kernel(format: Format) -> bool:
    """Whether the Triton kernels know how a format is stored."""
    is_one_block = format.base is format and format.columns_per_code == 1
    return format.scaled and format.in_planes and is_one_block


def _kind(format: Format) -> int:
    if isinstance(format, Lut):
        return _ROW_TABLE
    if isinstance(format, Integers):
        return _INTEGER
    if isinstance(format, E4m3):
        return _E4M3
    return _E2M1 if isinstance(format, Float4) else _TABLE


@cache
def _ones(n_rows: int, device: torch.device) -> torch.Tensor:
    """Scales of a format that has none."""
    import torch

    return torch.ones(n_rows, 1, dtype=torch.float16, device=device)


@cache
def _table(format: Format, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    import torch

    return torch.tensor(format.levels(), dtype=dtype, device=device)
