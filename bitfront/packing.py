"""Packed codes: the strided split-plane scheme that every integer code of 1 to 8 bits is stored in.

A code of `num_bits` is split into planes of 8, 4, 2 or 1 bits (3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2,
7 = 4 + 2 + 1); the low bits go to the widest plane. A plane of p bits is an int16 tensor
`[n_rows, n_padded * p / 16]` whose containers hold 16 / p fields each. The columns of a row are cut
into superblocks of (16 / p) * stride, and

    field f (bits p*f and up) of container j of superblock s holds column (s*16/p + f) * stride + j

so one shift and one mask give a run of `stride` consecutive columns, without any shuffle. The
stride follows from the column count (docs/decisions/0002-packing-stride.md) and is not stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitfront.errors import InvalidArgument

if TYPE_CHECKING:
    import torch

CONTAINER_BITS = 16
TRITS = 5
"""Ternary digits in a byte: 3^5 is 243."""
_STRIDES = (32, 16, 8, 4, 2, 1)
_CHUNK_WEIGHTS = 1 << 18


def plane_widths(num_bits: int) -> tuple[int, ...]:
    """Bits of each plane, widest first.

    >>> plane_widths(7)
    (4, 2, 1)

    Raises:
        InvalidArgument: not 1 to 8 bits.
    """
    if not 1 <= num_bits <= 8:
        raise InvalidArgument(f"Cannot pack codes of {num_bits} bits: give 1 to 8.")
    return tuple(width for width in (8, 4, 2, 1) if num_bits & width)


def padded_columns(n_columns: int) -> int:
    """Columns rounded up to a whole number of 1-bit containers.

    >>> padded_columns(576), padded_columns(570)
    (576, 576)
    """
    return -(-n_columns // CONTAINER_BITS) * CONTAINER_BITS


def stride(n_columns: int, width: int) -> int:
    """Columns between two fields of a container: the largest of 32, ..., 1 that needs no padding.

    >>> stride(4096, 4), stride(576, 4), stride(576, 1)
    (32, 16, 4)
    """
    n_fields = CONTAINER_BITS // width
    padded = padded_columns(n_columns)
    return next(s for s in _STRIDES if padded % (n_fields * s) == 0)


def plane_shapes(shape: tuple[int, int], num_bits: int) -> dict[str, tuple[int, int]]:
    """Shape of each int16 plane of a code matrix, by tensor name.

    >>> plane_shapes((2, 64), 3)
    {'codes_2bit': (2, 8), 'codes_1bit': (2, 4)}
    """
    n_rows, padded = shape[0], padded_columns(shape[1])
    return {
        f"codes_{width}bit": (n_rows, padded * width // CONTAINER_BITS)
        for width in plane_widths(num_bits)
    }


def pack(codes: torch.Tensor, num_bits: int) -> dict[str, torch.Tensor]:
    """Planes of a code matrix.

    Args:
        codes: uint8 `[n_rows, n_columns]`, each below `2**num_bits`; padding columns become code 0.
        num_bits: bits of one code, 1 to 8.

    Returns:
        int16 tensors on the device of `codes`, named and shaped as `plane_shapes` says.
    """
    import torch

    if codes.device.type != "cpu":
        return packed_by_torch(codes, num_bits)
    n_rows, n_columns = codes.shape
    shapes = plane_shapes((n_rows, n_columns), num_bits)
    planes = {name: np.zeros(shape, dtype=np.uint16) for name, shape in shapes.items()}
    padding = ((0, 0), (0, padded_columns(n_columns) - n_columns))
    padded = np.pad(np.ascontiguousarray(codes.cpu().numpy()), padding)
    for rows in _row_chunks(n_rows, padded.shape[1]):
        low_bit = 0
        for width, plane in zip(plane_widths(num_bits), planes.values(), strict=True):
            run = stride(n_columns, width)
            bits = (padded[rows] >> low_bit).astype(np.uint8) & np.uint8((1 << width) - 1)
            fields = _fields(bits, width, run)
            for field in range(CONTAINER_BITS // width):
                values = np.ascontiguousarray(fields[:, :, field]).view(np.uint8)
                shifted = values.reshape(-1, plane.shape[1]).astype(np.uint16) << (width * field)
                plane[rows] |= shifted
            low_bit += width
    return {
        name: torch.from_numpy(plane.view(np.int16)).to(codes.device)
        for name, plane in planes.items()
    }


def unpack(tensors: Mapping[str, torch.Tensor], num_bits: int, n_columns: int) -> torch.Tensor:
    """Code matrix of packed planes, uint8 `[n_rows, n_columns]`; inverse of `pack`.

    Numpy, a few rows at a time, is 2 to 5 times faster on one core than the same shifts in torch
    (one broadcast shift, one loop over fields, bytes instead of containers were tried).
    """
    import torch

    first = tensors[f"codes_{plane_widths(num_bits)[0]}bit"]
    if first.device.type != "cpu":
        return unpacked_by_torch(tensors, num_bits, n_columns)
    codes = np.empty((first.shape[0], padded_columns(n_columns)), dtype=np.uint8)
    planes = [
        (width, tensors[f"codes_{width}bit"].cpu().numpy().view(np.uint16))
        for width in plane_widths(num_bits)
    ]
    for rows in _row_chunks(*codes.shape):
        low_bit = 0
        for width, plane in planes:
            run = stride(n_columns, width)
            part = np.empty_like(codes[rows]) if low_bit else codes[rows]
            fields = _fields(part, width, run)
            for field in range(CONTAINER_BITS // width):
                values = (plane[rows] >> (width * field)) & ((1 << width) - 1)
                fields[:, :, field] = _items(values.astype(np.uint8), run)
            if low_bit:
                codes[rows] |= part << low_bit
            low_bit += width
    return torch.from_numpy(codes).to(first.device)[:, :n_columns]


def packed_by_torch(codes: torch.Tensor, num_bits: int) -> dict[str, torch.Tensor]:
    """`pack` where the codes are: what a GPU does, whose codes need not come over."""
    import torch

    n_rows, n_columns = codes.shape
    padded = codes.new_zeros(n_rows, padded_columns(n_columns))
    padded[:, :n_columns] = codes
    planes: dict[str, torch.Tensor] = {}
    low_bit = 0
    for name, shape in plane_shapes((n_rows, n_columns), num_bits).items():
        width = plane_widths(num_bits)[len(planes)]
        fields = _fields_of(padded, width, n_columns)
        plane = torch.zeros(fields[:, :, 0].shape, dtype=torch.int16, device=codes.device)
        for field in range(CONTAINER_BITS // width):
            bits = (fields[:, :, field] >> low_bit) & ((1 << width) - 1)
            plane |= bits.to(torch.int16) << (width * field)
        planes[name] = plane.reshape(shape)
        low_bit += width
    return planes


def unpacked_by_torch(
    tensors: Mapping[str, torch.Tensor], num_bits: int, n_columns: int
) -> torch.Tensor:
    """`unpack` where the planes are."""
    import torch

    widths, low_bit = plane_widths(num_bits), 0
    planes = [tensors[f"codes_{width}bit"] for width in widths]
    shape = len(planes[0]), padded_columns(n_columns)
    codes = torch.zeros(shape, dtype=torch.uint8, device=planes[0].device)
    for width, plane in zip(widths, planes, strict=True):
        fields = _fields_of(codes, width, n_columns)
        containers = plane.reshape(fields[:, :, 0].shape)
        for field in range(CONTAINER_BITS // width):
            bits = (containers >> (width * field)) & ((1 << width) - 1)
            fields[:, :, field] |= bits.to(torch.uint8) << low_bit
        low_bit += width
    return codes[:, :n_columns]


def trits_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Shape of the bytes of a matrix of trits, five to a byte.

    >>> trits_shape((2, 64))
    (2, 13)
    """
    return shape[0], -(-shape[1] // TRITS)


def pack_trits(trits: torch.Tensor) -> torch.Tensor:
    """Bytes `sum of trit i * 3^i` over five consecutive columns; padding is 0.

    Args:
        trits: uint8 `[n_rows, n_columns]`, each 0, 1 or 2.
    """
    import torch

    powers = torch.tensor([3**i for i in range(TRITS)], dtype=torch.uint8, device=trits.device)
    padded = torch.nn.functional.pad(trits, (0, -trits.shape[1] % TRITS))
    return (padded.reshape(len(trits), -1, TRITS) * powers).sum(dim=2, dtype=torch.uint8)


def unpack_trits(packed: torch.Tensor, n_columns: int) -> torch.Tensor:
    """Trits uint8 `[n_rows, n_columns]` by a table of all bytes; inverse of `pack_trits`."""
    import torch

    every = torch.arange(256, device=packed.device)
    table = torch.stack([every // 3**i % 3 for i in range(TRITS)], dim=1).to(torch.uint8)
    trits = table.index_select(0, packed.reshape(-1).int())
    return trits.reshape(len(packed), -1)[:, :n_columns]


def _fields_of(codes: torch.Tensor, width: int, n_columns: int) -> torch.Tensor:
    """View of padded codes, `[n_rows, n_superblocks, 16 / width, stride]`."""
    return codes.view(len(codes), -1, CONTAINER_BITS // width, stride(n_columns, width))


def _row_chunks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Row ranges whose codes stay in the cache of one core."""
    step = max(1, _CHUNK_WEIGHTS // n_columns)
    return (slice(start, start + step) for start in range(0, n_rows, step))


def _items(codes: NDArray[np.uint8], run: int) -> NDArray[Any]:
    """Codes by run, `[n_rows, n_runs, run]`; runs up to 8 are one integer each, `[n_rows, n_runs]`.

    Moving runs of 1 to 8 bytes one by one is slow, moving integers of that size is not.
    """
    n_rows = codes.shape[0]
    if run > 8:
        return codes.reshape(n_rows, -1, run)
    return codes.view(f"u{run}").reshape(n_rows, -1)


def _fields(codes: NDArray[np.uint8], width: int, run: int) -> NDArray[Any]:
    """View of codes by superblock and field, `[n_rows, n_superblocks, 16 / width, ...]`."""
    items = _items(codes, run)
    return items.reshape(len(items), -1, CONTAINER_BITS // width, *items.shape[2:])
