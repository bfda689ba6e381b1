"""Format: what the numbers of a weight are, how many bytes they take, how codes become numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING, ClassVar

from bitfront import packing

if TYPE_CHECKING:
    import torch

    from bitfront.formats._activations import Activation
    from bitfront.formats._rotation import Rotation

DTYPE_BYTES = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int16": 2,
    "uint8": 1,
    "float8_e4m3fn": 1,
}
GROUP_SIZES = (32, 64, 128)
_ALL = slice(None)
FLOAT16_TINY, FLOAT16_MAX = 2.0**-24, 65504.0


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

    with one scale (and zero point) per group of `group_columns` consecutive columns, or per row.
    Subclasses are frozen dataclasses; importing them never imports torch.
    """

    scaled: ClassVar[bool] = True
    """Whether a value is a level times a scale; False where the weight itself is stored (bf16)."""

    learned: ClassVar[bool] = False
    """Whether levels are fitted to each weight, so that there is no range to clip."""

    in_planes: ClassVar[bool] = True
    """Whether codes are stored in planes of bits or bytes, and mean the same in every group."""

    @property
    @abstractmethod
    def num_bits(self) -> int:
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
        """Number that each code stands for, in order of the codes, of which `2**num_bits` fit."""

    @abstractmethod
    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Quantization parameters on disk, by tensor name."""

    @abstractmethod
    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Parameters whose levels cover `clip` times the range of each group, rounded as stored.

        The zero point, where the format has one, is the tensor `"zero_point"`; what is shared by
        the whole matrix does not depend on `clip`, so that groups can be clipped one by one.

        Args:
            low: smallest value of each group or 0 if that is smaller, float32 `[n_rows, n_groups]`.
            high: largest value of each group or 0 if that is larger, of the same shape.
            clip: fraction of the range that is covered, one for all or `[n_rows, n_groups]`.
        """

    @abstractmethod
    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Float32 `(scale, zero_point)`, `[n_rows, n_groups]`; no zero point if symmetric."""

    @property
    def weight_format(self) -> Format:
        """The format of the weight alone: this one, unless it is a pair with inputs."""
        return self

    @property
    def input_format(self) -> Activation | None:
        """What the inputs of the layer are rounded to; `None` leaves them as they are."""
        return None

    @property
    def columns_per_code(self) -> int:
        """Consecutive columns that one code stands for."""
        return 1

    @property
    def code_bits(self) -> float:
        """Bits of codes to a weight, without parameters, of a large weight."""
        return self.num_bits / self.columns_per_code

    def n_code_bits(self, shape: tuple[int, int]) -> float:
        """Bits of all codes of a weight, a whole number: what budgets in bits count."""
        return self.code_bits * prod(shape)

    def rotation(self, n_columns: int) -> Rotation | None:
        """How rows are turned before they are rounded, and inputs before they are multiplied."""
        return None

    def input_scale(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """What columns of `base` are multiplied by, or inputs instead, float32 `[n_columns]`.

        Powers of two, so that it makes no difference which.
        """
        return None

    def taken_out(
        self, weight: torch.Tensor, importance: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Stored tensors of what `base` is not to store of a weight; none for most formats.

        Args:
            weight: float32 `[n_rows, n_columns]`.
            importance: of each column, float32 `[n_columns]`, or of each weight; where it is known.
        """
        return {}

    def rest(self, weight: torch.Tensor, taken: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What `base` is to store of a weight once `taken` is out of it."""
        return weight

    def rest_columns(
        self, numbers: torch.Tensor, taken: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Numbers of columns, `[..., n_columns]`, in the order of those of `rest`."""
        return numbers

    @property
    def base(self) -> Format:
        """The format of the rows once turned, scaled or lightened; else this one."""
        return self

    def qparams(
        self,
        weight: torch.Tensor,
        clip: float | torch.Tensor = 1.0,
        importance: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Parameters from the range of each group of a float32 weight `[n_rows, n_columns]`.

        Args:
            weight: what is to be rounded.
            clip: as of `qparams_of_range`.
            importance: of each column, float32 `[n_columns]`, or of each weight; for levels that
                are fitted to the weight.
        """
        return self.qparams_of_range(*self.group_range(weight), clip)

    def group_range(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Smallest and largest value of each group, 0 included: two `[n_rows, n_groups]`."""
        groups = weight.reshape(weight.shape[0], -1, self.group_columns or weight.shape[1])
        return groups.amin(dim=2).clamp_(max=0), groups.amax(dim=2).clamp_(min=0)

    @property
    def telling_columns(self) -> int:
        """Columns of a weight on which everything that the format does can be seen."""
        return 2 * (self.group_columns or 64)

    def codes_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Shape of the codes of a weight."""
        return shape[0], shape[1] // self.columns_per_code

    def fits(self, shape: tuple[int, int]) -> bool:
        """Whether a weight of this shape can take the format: whole groups and codes only."""
        return shape[1] % (self.group_columns or self.columns_per_code) == 0

    def stored(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Every tensor of a quantized weight on disk: code planes, then qparams."""
        planes = {
            name: StoredTensor(plane_shape, "int16")
            for name, plane_shape in packing.plane_shapes(
                self.codes_shape(shape), self.num_bits
            ).items()
        }
        return planes | self.stored_qparams(shape)

    def nbytes(self, shape: tuple[int, int]) -> int:
        """Exact bytes on disk of a weight of this shape, padding included."""
        return sum(tensor.nbytes for tensor in self.stored(shape).values())

    def bits_per_weight(self, shape: tuple[int, int]) -> float:
        """Stored bits over number of weights: 4.5 for `int4_g64`, not 4."""
        return 8 * self.nbytes(shape) / prod(shape)

    def nearest(self, scaled: torch.Tensor) -> torch.Tensor:
        """Codes (uint8) of the levels nearest to `weight / scale + zero_point`, any shape."""
        return _nearest_codes(self.levels(), scaled)

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        """Float32 levels of uint8 codes, any shape; a new tensor."""
        import torch

        levels = torch.tensor(self.levels(), device=codes.device)
        return levels.index_select(0, codes.reshape(-1).int()).reshape(codes.shape)

    def rounded(self, scaled: torch.Tensor) -> torch.Tensor:
        """Float32 levels nearest to `scaled`, for searches that only want the error.

        Midpoints between levels are taken at bfloat16 resolution, which needs one look-up by the
        upper half of each float: some eight times faster than `values(nearest(scaled))`.
        """
        return by_upper_half(_upper_half_levels(self.levels()), scaled)

    def nearest_in(
        self,
        scaled: torch.Tensor,
        qparams: Mapping[str, torch.Tensor],
        rows: slice = _ALL,
        groups: slice = _ALL,
    ) -> torch.Tensor:
        """`nearest` where levels depend on the row or group; scaled is `[rows, groups, n]`."""
        return self.nearest(scaled)

    def values_in(
        self,
        codes: torch.Tensor,
        qparams: Mapping[str, torch.Tensor],
        rows: slice = _ALL,
        groups: slice = _ALL,
    ) -> torch.Tensor:
        """`values` where levels depend on the row or group; codes are `[rows, groups, n]`."""
        return self.values(codes)

    def rounded_in(
        self, scaled: torch.Tensor, qparams: Mapping[str, torch.Tensor], rows: slice = _ALL
    ) -> torch.Tensor:
        """`rounded` where levels depend on the row or group; scaled is `[rows, n_groups, n]`."""
        return self.rounded(scaled)

    def encode(self, weight: torch.Tensor, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Nearest codes, uint8 `[n_rows, n_columns / columns_per_code]`."""
        scale, zero_point = self.affine(qparams)
        scaled = weight.reshape(*scale.shape, -1) / scale[..., None]
        if zero_point is not None:
            scaled += zero_point[..., None]
        return self.nearest_in(scaled, qparams).reshape(len(weight), -1)

    def decode(self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Float32 `[n_rows, n_columns]` from codes as `encode` gives them."""
        scale, zero_point = self.affine(qparams)
        values = self.values_in(codes.reshape(*scale.shape, -1), qparams)
        if zero_point is not None:
            values -= zero_point[..., None]
        return values.mul_(scale[..., None]).reshape(len(codes), -1)

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
        return packing.unpack(tensors, self.num_bits, self.codes_shape(shape)[1]), qparams

    def parts(self, shape: tuple[int, int]) -> tuple[tuple[Format, int], ...]:
        """Formats of the parts of columns that the turned weight is stored as, with their widths.

        What `stored` names is theirs, part by part; then what tells the order of the columns.
        """
        return ((self.base, shape[1]),)

    def column_order(
        self, tensors: Mapping[str, torch.Tensor], n_columns: int
    ) -> torch.Tensor | None:
        """Column of the weight for each stored one, int64 `[n_columns]`; `None` if it is itself."""
        return None

    def decode_stored(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, int]
    ) -> torch.Tensor:
        """Float32 weight `[n_rows, n_columns]` straight from the stored tensors."""
        return self.decode(*self.unpack(tensors, shape))

    def __str__(self) -> str:
        return self.name


def _nearest_codes(levels: tuple[float, ...], scaled: torch.Tensor) -> torch.Tensor:
    import torch

    rising = sorted(set(levels))
    codes = torch.tensor([levels.index(x) for x in rising], dtype=torch.uint8, device=scaled.device)
    marks = torch.tensor(rising, device=scaled.device)
    order = torch.bucketize(scaled.contiguous(), (marks[1:] + marks[:-1]) / 2, out_int32=True)
    return codes.index_select(0, order.reshape(-1)).reshape(scaled.shape)


@cache
def upper_half_codes(levels: tuple[float, ...]) -> torch.Tensor:
    """Nearest code of the floats with each upper half, uint8 `[2**16]`, by upper half + 2**15."""
    import torch

    upper = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32)
    return _nearest_codes(levels, ((upper << 16) | (1 << 15)).view(torch.float32))


@cache
def _upper_half_levels(levels: tuple[float, ...]) -> torch.Tensor:
    import torch

    return torch.tensor(levels)[upper_half_codes(levels).int()]


def by_upper_half(table: torch.Tensor, scaled: torch.Tensor) -> torch.Tensor:
    """Entry of a table `[2**16]` for each number, by its upper half + 2**15; any shape."""
    import torch

    upper = (scaled.contiguous().view(torch.int32) >> 16).reshape(-1)
    return table.to(scaled.device).index_select(0, upper.add_(1 << 15)).reshape(scaled.shape)


class GroupScaled(Format):
    """Formats with one float16 scale, and nothing else, per `group_size` columns."""

    group_size: int

    @property
    def group_columns(self) -> int | None:
        """The group size."""
        return self.group_size

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Float16 scale per group."""
        return {"scale": StoredTensor(group_shape(shape, self.group_size), "float16")}

    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The scale in float32."""
        return qparams["scale"].float(), None


def group_shape(shape: tuple[int, int], group_size: int | None) -> tuple[int, int]:
    """Shape of the per-group parameters of a weight, `(n_rows, n_groups)`."""
    return shape[0], 1 if group_size is None else shape[1] // group_size


def float16_scale(scale: torch.Tensor) -> torch.Tensor:
    """Float16 nearest to a scale of either sign, never zero, NaN or infinite.

    The group of zeros gets the smallest scale, a group beyond float16 saturates.
    """
    import torch

    size = scale.abs().clamp_(FLOAT16_TINY, FLOAT16_MAX)
    return torch.copysign(size, scale).to(torch.float16)
