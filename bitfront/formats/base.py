"""Format: what the numbers of a weight are, how many bytes they take, how codes become numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from bitfront import packing

if TYPE_CHECKING:
    import torch

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int16": 2, "uint8": 1, "float8_e4m3fn": 1}


@dataclass(frozen=True)
class StoredTensor:
    """Shape and dtype name of one tensor of a quantized weight on disk."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return prod(self.shape) * DTYPE_BYTES[self.dtype]


class Format(ABC):
    """A numeric format for a weight matrix `[n_rows, n_columns]`.

    A weight is stored as unsigned codes and quantization parameters ("qparams"); its value is

        scale * (level[code] - zero_point)

    with one scale (and zero point) per group of `group_size` consecutive columns, or per row.
    Subclasses are frozen dataclasses; importing them never imports torch.
    """

    num_bits: int
    """Bits of one code."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Canonical name, such as `"int4_g64"`."""

    @property
    @abstractmethod
    def group_columns(self) -> int | None:
        """Columns that share a scale; `None` for the whole row."""

    @classmethod
    @abstractmethod
    def catalogue(cls) -> tuple[Format, ...]:
        """Every format of this family that bitfront offers by name."""

    @abstractmethod
    def levels(self) -> tuple[float, ...]:
        """Number that each code stands for, `2**num_bits` values in rising order."""

    @abstractmethod
    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Quantization parameters on disk, by tensor name."""

    @abstractmethod
    def qparams(self, weight: torch.Tensor, clip: float = 1.0) -> dict[str, torch.Tensor]:
        """Parameters from the range of each group, shrunk by `clip`, already rounded as stored.

        Args:
            weight: float32 `[n_rows, n_columns]`.
            clip: fraction of the range that the levels cover.
        """

    @abstractmethod
    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Float32 `(scale, zero_point)`, each `[n_rows, n_groups]`; no zero point for symmetric formats."""

    def fits(self, shape: tuple[int, int]) -> bool:
        """Whether a weight of this shape can take the format: whole groups only."""
        return self.group_columns is None or shape[1] % self.group_columns == 0

    def stored(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Every tensor of a quantized weight on disk: code planes, then qparams."""
        planes = {
            name: StoredTensor(plane_shape, "int16")
            for name, plane_shape in packing.plane_shapes(shape, self.num_bits).items()
        }
        return planes | self.stored_qparams(shape)

    def nbytes(self, shape: tuple[int, int]) -> int:
        """Exact bytes on disk of a weight of this shape, padding included."""
        return sum(tensor.nbytes for tensor in self.stored(shape).values())

    def bits_per_weight(self, shape: tuple[int, int]) -> float:
        """Stored bits over number of weights: 4.5 for `int4_g64`, not 4."""
        return 8 * self.nbytes(shape) / prod(shape)

    def nearest(self, scaled: torch.Tensor) -> torch.Tensor:
        """Codes (uint8) of the levels nearest to `scaled = weight / scale + zero_point`, any shape."""
        import torch

        levels = torch.tensor(self.levels(), dtype=scaled.dtype)
        return torch.bucketize(scaled.contiguous(), (levels[1:] + levels[:-1]) / 2).to(torch.uint8)

    def encode(self, weight: torch.Tensor, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Nearest codes, uint8 `[n_rows, n_columns]`."""
        scale, zero_point = self._per_column(qparams, weight.shape[1])
        return self.nearest(weight / scale if zero_point is None else weight / scale + zero_point)

    def decode(self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Float32 `[n_rows, n_columns]` from codes of the same shape."""
        import torch

        scale, zero_point = self._per_column(qparams, codes.shape[1])
        values = torch.tensor(self.levels(), dtype=torch.float32)[codes.int()]
        return scale * values if zero_point is None else scale * (values - zero_point)

    def _per_column(
        self, qparams: Mapping[str, torch.Tensor], n_columns: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        scale, zero_point = self.affine(qparams)
        repeats = n_columns // scale.shape[1]
        return (
            scale.repeat_interleave(repeats, dim=1),
            None if zero_point is None else zero_point.repeat_interleave(repeats, dim=1),
        )

    def pack(
        self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Tensors as written to disk; names, shapes and dtypes are those of `stored`."""
        return packing.pack(codes, self.num_bits) | dict(qparams)

    def unpack(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, int]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Inverse of `pack`: `(codes, qparams)`."""
        qparams = {name: tensors[name] for name in self.stored_qparams(shape)}
        return packing.unpack(tensors, self.num_bits, shape[1]), qparams

    def decode_stored(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, int]
    ) -> torch.Tensor:
        """Float32 weight `[n_rows, n_columns]` straight from the stored tensors."""
        return self.decode(*self.unpack(tensors, shape))

    def __str__(self) -> str:
        return self.name
