"""Integers of two or three widths in one matrix, each for whole groups of columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitfront.errors import InvalidArgument
from bitfront.formats._widths import Widths
from bitfront.formats.base import (
    GROUP_SIZES,
    Format,
    StoredTensor,
    float16_scale,
    group_shape,
)
from bitfront.formats.int_grouped import IntGrouped

if TYPE_CHECKING:
    import torch

_PARTS = ("narrow", "middle", "wide")


@dataclass(frozen=True)
class Mixed(Widths):
    """Asymmetric integers, some groups of columns with more bits and some with fewer.

    A group is `group_size` columns of all rows, so that the weight is a few ordinary integer
    matrices side by side, which one kernel multiplies in one launch. One group in `one_in` has
    `wide_bits`, as many have `narrow_bits` if those are fewer than `num_bits`; which ones is stored
    as an order of the groups, 16 bits each. How many are wide is fixed, so that bytes follow from
    the shape alone.

    `slim3_g64` is 3 bits with eighths of 2 and 4 (SliM-LLM, Huang et al. 2024, arXiv:2405.14917,
    section 3.2; the quantizer `slim` picks by salience). `int2x4_g64` is 2 bits with a quarter of 4
    (Li et al. 2023, arXiv:2311.16442, section 3, whose whole groups keep memory aligned): 2.5 bits.
    Other quantizers pick the groups of the widest ranges. Takes the 32 bits per group of plain
    integers. A bit more saves a group some 0.7 of its error at 2 bits, a bit less adds 2.4 of it:
    mixing pays where the groups that matter most lose over 3 times what those lose that matter
    least. SliM-LLM looks for how many to mix, none among the choices; here that is for the search,
    which has plain integers of as many bits beside it on the menu. Prefer it where groups of
    columns differ so much in what they do to the output.

    Args:
        num_bits: of most groups, 2 to 4.
        narrow_bits: of the groups that matter least: `num_bits`, or one less.
        wide_bits: of those that matter most, above `num_bits`, at most 8.
        one_in: groups to a wide one, 2 to 32.
        group_size: columns that share a width, and in each row a scale: 32, 64 or 128.
    """

    num_bits: int = 3
    narrow_bits: int = 2
    wide_bits: int = 4
    one_in: int = 8
    group_size: int = 64

    def __post_init__(self) -> None:
        widths = [1, self.narrow_bits, self.num_bits, min(self.wide_bits, 8) - 1]
        if widths != sorted(widths) or not 2 <= self.num_bits <= 4 or self.wide_bits > 8:
            raise InvalidArgument(
                f"Widths of {self.narrow_bits}, {self.num_bits} and {self.wide_bits} bits: give 2 "
                "to 4 for most groups, as many or one less, and more, up to 8."
            )
        if not 2 <= self.one_in <= 32:
            raise InvalidArgument(f"one_in={self.one_in} is not between 2 and 32.")
        if self.group_size not in GROUP_SIZES:
            raise InvalidArgument(f"Group size {self.group_size} of widths is not 32, 64 or 128.")

    @property
    def name(self) -> str:
        """`slim3_g64`, `int2x4_g64`."""
        if self.narrow_bits < self.num_bits:
            return f"slim{self.num_bits}_g{self.group_size}"
        return f"int{self.num_bits}x{self.wide_bits}_g{self.group_size}"

    @property
    def group_columns(self) -> int | None:
        """The group size."""
        return self.group_size

    @property
    def code_bits(self) -> float:
        """The average: what wide groups have more, narrow ones have less where there are any."""
        if self.narrow_bits < self.num_bits:
            return self.num_bits
        return self.num_bits + (self.wide_bits - self.num_bits) / self.one_in

    @classmethod
    def catalogue(cls) -> tuple[Mixed, ...]:
        """2, 3 and 4 bits with eighths of one less and one more; 2 bits with a quarter of 4."""
        slim = [cls(b, b - 1, b + 1, 8, size) for b in (2, 3, 4) for size in GROUP_SIZES]
        return (*slim, cls(2, 2, 4, 4, 32), cls(2, 2, 4, 4, 64))

    def fits(self, shape: tuple[int, int]) -> bool:
        """Whole groups; where none are narrow, as many that every `one_in`th can be wide."""
        n_columns = self.group_size * (1 if self.narrow_bits < self.num_bits else self.one_in)
        return shape[1] % n_columns == 0

    @property
    def telling_columns(self) -> int:
        """As many that there is a wide group."""
        return self.one_in * self.group_size

    def counts(self, n_columns: int) -> tuple[int, int, int]:
        """Groups of each width: narrow, middle, wide."""
        n_groups = n_columns // self.group_size
        n_wide = n_groups // self.one_in
        n_narrow = n_wide if self.narrow_bits < self.num_bits else 0
        return n_narrow, n_groups - n_wide - n_narrow, n_wide

    def grids(self) -> tuple[IntGrouped, IntGrouped, IntGrouped]:
        """The integers of each width."""
        widths = (self.narrow_bits, self.num_bits, self.wide_bits)
        narrow, middle, wide = (IntGrouped(bits, self.group_size) for bits in widths)
        return narrow, middle, wide

    def parts(self, shape: tuple[int, int]) -> tuple[tuple[Format, int], ...]:
        """Integers of each width that there is, with their columns."""
        grids = zip(self.grids(), self.counts(shape[1]), strict=True)
        return tuple((grid, count * self.group_size) for grid, count in grids if count)

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Float16 scale and zero point per group, and the groups in the order they are stored."""
        tensor = StoredTensor(group_shape(shape, self.group_size), "float16")
        order = StoredTensor((shape[1] // self.group_size,), "int16")
        return {"scale": tensor, "zero_point": tensor, "order": order}

    def stored(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Tensors of each part, with its name before theirs, and the order."""
        counts = zip(_PARTS, self.grids(), self.counts(shape[1]), strict=True)
        tensors = {
            f"{part}_{name}": tensor
            for part, grid, count in counts
            if count
            for name, tensor in grid.stored((shape[0], count * self.group_size)).items()
        }
        return tensors | {"order": self.stored_qparams(shape)["order"]}

    def order(self, salience: torch.Tensor) -> torch.Tensor:
        """Groups as they are stored, int16: the least salient are narrow, the most are wide.

        Args:
            salience: of each group, `[n_groups]`.
        """
        import torch

        rising = salience.argsort(stable=True)
        parts = torch.split(rising, list(self.counts(len(salience) * self.group_size)))
        return torch.cat([part.sort().values for part in parts]).to(torch.int16)

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Groups of the widest ranges are the wide ones."""
        ranges = (high.double() - low.double()).square().sum(dim=0)
        return self.qparams_in_order(self.order(ranges), low, high, clip)

    def qparams_in_order(
        self,
        order: torch.Tensor,
        low: torch.Tensor,
        high: torch.Tensor,
        clip: float | torch.Tensor = 1.0,
    ) -> dict[str, torch.Tensor]:
        """Scale over the clipped range, zero point where 0 falls, by the widths of an `order`."""
        import torch

        top = self._tops(order)
        scale = float16_scale((high * clip / top) - (low * clip / top))
        zero_point = torch.minimum((-low * clip / scale.float()).clamp_(min=0), top)
        return {"scale": scale, "zero_point": zero_point.to(torch.float16), "order": order}

    def _tops(self, order: torch.Tensor) -> torch.Tensor:
        """Largest code of each group, float32 `[n_groups]`."""
        import torch

        counts = torch.tensor(self.counts(len(order) * self.group_size), device=order.device)
        tops = [2.0**grid.num_bits - 1 for grid in self.grids()]
        stored = torch.tensor(tops, device=order.device).repeat_interleave(counts)
        return torch.empty_like(stored).index_copy_(0, order.long(), stored)

    def tops(self, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """By the widths of the order."""
        return self._tops(qparams["order"])

    def column_order(
        self, tensors: Mapping[str, torch.Tensor], n_columns: int
    ) -> torch.Tensor | None:
        """Columns of the groups as they are stored."""
        return self.columns(tensors["order"])

    def columns(self, groups: torch.Tensor) -> torch.Tensor:
        """Columns of groups, int64."""
        import torch

        within = torch.arange(self.group_size, device=groups.device)
        return (groups.long()[:, None] * self.group_size + within).reshape(-1)

    def split(self, order: torch.Tensor) -> list[tuple[str, IntGrouped, torch.Tensor]]:
        """Name, integers and groups of each part that there is."""
        import torch

        counts = list(self.counts(len(order) * self.group_size))
        parts = zip(_PARTS, self.grids(), torch.split(order.long(), counts), strict=True)
        return [(name, grid, groups) for name, grid, groups in parts if len(groups)]

    def pack(
        self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The tensors of each part, and the order."""
        tensors: dict[str, torch.Tensor] = {}
        for name, grid, groups in self.split(qparams["order"]):
            own = {k: qparams[k].index_select(1, groups) for k in ("scale", "zero_point")}
            packed = grid.pack(codes.index_select(1, self.columns(groups)), own)
            tensors |= {f"{name}_{key}": tensor for key, tensor in packed.items()}
        return tensors | {"order": qparams["order"]}

    def unpack(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, int]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Codes and parameters in the order of the columns."""
        import torch

        order = tensors["order"]
        codes = torch.empty(shape, dtype=torch.uint8, device=order.device)
        whole = group_shape(shape, self.group_size)
        qparams = {
            key: torch.empty(whole, dtype=torch.float16, device=order.device)
            for key in ("scale", "zero_point")
        }
        for name, grid, groups in self.split(order):
            columns = self.columns(groups)
            own = {k.removeprefix(f"{name}_"): t for k, t in tensors.items() if k.startswith(name)}
            part, found = grid.unpack(own, (shape[0], len(columns)))
            codes.index_copy_(1, columns, part)
            for key, tensor in qparams.items():
                tensor.index_copy_(1, groups, found[key])
        return codes, {**qparams, "order": order}
