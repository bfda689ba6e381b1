"""Two levels for most columns, four bits for the salient ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from bitfront.errors import InvalidArgument
from bitfront.formats._widths import Widths
from bitfront.formats.base import Format, StoredTensor, float16_scale
from bitfront.formats.int_grouped import IntGrouped

if TYPE_CHECKING:
    import torch

UNIT = 16
"""Columns are salient in multiples of it, so that both parts are whole containers."""
_MASK = "salient_mask"
_WIDE, _NARROW = IntGrouped(4, None), IntGrouped(1, None)
_CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6)


@dataclass(frozen=True)
class SalientFirst(Widths):
    """`BinarySalient` of columns that are in order already, salient ones first.

    Parameters have a scale and zero point for every 16 columns, equal within a part; stored are
    those of one unit of each part.

    Args:
        percent: share of salient columns.
    """

    percent: int = 20
    num_bits: int = field(default=4, init=False)
    learned: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Never stored: what has it is `binary_salient20`."""
        return f"salient_first{self.percent}"

    @property
    def group_columns(self) -> int | None:
        """16, over which scales are repeated."""
        return UNIT

    @classmethod
    def catalogue(cls) -> tuple[Format, ...]:
        """None: it is a part of `BinarySalient`."""
        return ()

    def n_salient(self, n_columns: int) -> int:
        """A multiple of 16: the share rounded to the nearest, at least 16."""
        return max(1, round(n_columns * self.percent / 100 / UNIT)) * UNIT

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Scales and zero points by unit, as they are used."""
        tensor = StoredTensor((shape[0], shape[1] // UNIT), "float16")
        return {"scale": tensor, "zero_point": tensor}

    def qparams(
        self,
        weight: torch.Tensor,
        clip: float | torch.Tensor = 1.0,
        importance: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Best clip of the salient part, the two means of the rest."""
        import torch

        n = self.n_salient(weight.shape[1])
        heavy = torch.ones(weight.shape[1], device=weight.device)
        if importance is not None:
            heavy = importance / importance.mean().clamp(min=1e-30) + 1e-6
        wide = _clipped(weight[:, :n], heavy[..., :n])
        narrow = _two_means(weight[:, n:], heavy[..., n:])
        units = n // UNIT, (weight.shape[1] - n) // UNIT
        return {
            key: torch.cat(
                [wide[key].expand(-1, units[0]), narrow[key].expand(-1, units[1])], dim=1
            )
            for key in ("scale", "zero_point")
        }

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Each part over its range."""
        import torch

        n = self.n_salient(low.shape[1] * UNIT) // UNIT
        parts = []
        for grid, at in ((_WIDE, slice(0, n)), (_NARROW, slice(n, None))):
            ends = low[:, at].amin(1, keepdim=True), high[:, at].amax(1, keepdim=True)
            of_part = grid.qparams_of_range(*ends)
            parts.append({k: t.expand(-1, low[:, at].shape[1]) for k, t in of_part.items()})
        return {k: torch.cat([part[k] for part in parts], dim=1) for k in parts[0]}

    def tops(self, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """15 in salient units, 1 in the others."""
        import torch

        n_units = qparams["scale"].shape[1]
        n = self.n_salient(n_units * UNIT) // UNIT
        is_wide = torch.arange(n_units, device=qparams["scale"].device) < n
        return torch.where(is_wide, 15.0, 1.0)


@dataclass(frozen=True)
class BinarySalient(Format):
    """Rows of two levels each, but for a share of input columns that have 4 bits.

    PTQ1.61 (Zhao et al. 2025, arXiv:2502.13179, section 3.2): columns that meet large inputs, a
    fifth of them, cost a bit of mask per column and nothing per weight, where unstructured masks
    (PB-LLM, BiLLM) cost a bit of every weight. Salient are the columns of most E[x_j^2] ||W_:j||^2
    where a quantizer knows the inputs, else of most ||W_:j||^2. The others have two levels per row,
    their two means (the paper's scales +-a, free of being symmetric); its training of scales block
    by block and its preprocessing of the model are left out. Takes 1 + 3/5 bits and 64 bits per
    row: `binary_salient20` is 1.617 bits per weight at 4096 columns. Both parts are integers of
    one launch, with the inputs in the order of the columns. Prefer it only where less than 2 bits
    must do.

    Args:
        percent: share of salient columns, 5 to 50, rounded to multiples of 16 columns.
    """

    percent: int = 20
    num_bits: int = field(default=4, init=False)
    learned: ClassVar[bool] = True
    in_planes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 5 <= self.percent <= 50:
            raise InvalidArgument(f"percent={self.percent}: 5 to 50 of the columns are salient.")

    @property
    def base(self) -> SalientFirst:
        """Of the columns in order."""
        return SalientFirst(self.percent)

    @property
    def name(self) -> str:
        """`binary_salient20`."""
        return f"binary_salient{self.percent}"

    @property
    def code_bits(self) -> float:
        """1 and 3 more for the share; the multiples of 16 are left out."""
        return 1 + 3 * self.percent / 100

    def n_code_bits(self, shape: tuple[int, int]) -> float:
        """1 and 3 more for the columns that are salient: in 64, with a tenth of them, 16."""
        return shape[0] * (shape[1] + 3 * self.base.n_salient(shape[1]))

    @property
    def group_columns(self) -> int | None:
        """16, over which scales are repeated; they are stored once per row and part."""
        return UNIT

    @classmethod
    def catalogue(cls) -> tuple[BinarySalient, ...]:
        """A tenth and a fifth of the columns."""
        return cls(10), cls(20)

    def fits(self, shape: tuple[int, int]) -> bool:
        """Multiples of 16 columns, some of them not salient."""
        return shape[1] % UNIT == 0 and shape[1] >= 2 * UNIT

    def levels(self) -> tuple[float, ...]:
        """None: the parts differ."""
        return ()

    def parts(self, shape: tuple[int, int]) -> tuple[tuple[Format, int], ...]:
        """4 bits for salient columns, one for the rest."""
        n = self.base.n_salient(shape[1])
        return (_WIDE, n), (_NARROW, shape[1] - n)

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Those in order, and the mask: a bit per column."""
        return self.base.stored_qparams(shape) | {_MASK: StoredTensor((1, shape[1] // 8), "uint8")}

    def stored(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Tensors of each part, with its name before theirs, then the mask."""
        parts = zip(("salient", "binary"), self.parts(shape), strict=True)
        tensors = {
            f"{part}_{name}": tensor
            for part, (grid, n_columns) in parts
            for name, tensor in grid.stored((shape[0], n_columns)).items()
        }
        return tensors | {_MASK: self.stored_qparams(shape)[_MASK]}

    def taken_out(
        self, weight: torch.Tensor, importance: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """The mask of the salient columns, packed eight to a byte."""
        import numpy as np
        import torch

        unit = weight.abs().max().clamp(min=2.0**-126)
        salience = (weight / unit).square()
        if importance is not None:
            salience = salience * importance.clamp(min=0) / importance.max().clamp(min=1e-30)
        salience = salience.sum(dim=0)
        n = self.base.n_salient(weight.shape[1])
        mask = np.zeros(weight.shape[1], dtype=bool)
        mask[salience.argsort(descending=True, stable=True)[:n].cpu().numpy()] = True
        return {
            _MASK: torch.from_numpy(np.packbits(mask, bitorder="little"))[None].to(weight.device)
        }

    def column_order(
        self, tensors: Mapping[str, torch.Tensor], n_columns: int
    ) -> torch.Tensor | None:
        """Salient columns, then the others, each by rising number."""
        import torch

        mask = tensors[_MASK].reshape(-1).int()
        bits = mask[:, None] >> torch.arange(8, device=mask.device) & 1
        return bits.reshape(-1).argsort(descending=True, stable=True)

    def rest(self, weight: torch.Tensor, taken: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The weight with its columns in order."""
        return self.rest_columns(weight, taken)

    def rest_columns(
        self, numbers: torch.Tensor, taken: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Salient ones first."""
        order = self.column_order(taken, numbers.shape[-1])
        assert order is not None
        return numbers.index_select(-1, order)

    def qparams(
        self,
        weight: torch.Tensor,
        clip: float | torch.Tensor = 1.0,
        importance: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The mask, and those of the columns in order."""
        taken = self.taken_out(weight, importance)
        if importance is not None:
            importance = self.rest_columns(importance, taken)
        return {**self.base.qparams(self.rest(weight, taken), clip, importance), **taken}

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Those in order, the first columns salient."""
        import torch

        n_columns = low.shape[1] * UNIT
        mask = torch.zeros(1, n_columns // 8, dtype=torch.uint8, device=low.device)
        mask[:, : self.base.n_salient(n_columns) // 8] = 255
        return self.base.qparams_of_range(low, high, clip) | {_MASK: mask}

    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """By unit of 16 columns in order."""
        return self.base.affine(qparams)

    def encode(self, weight: torch.Tensor, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Nearest codes, of the columns in order."""
        return self.base.encode(self.rest(weight, qparams), qparams)

    def decode(self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Float32 `[n_rows, n_columns]`, every column in its place."""
        import torch

        ordered = self.base.decode(codes, qparams)
        order = self.column_order(qparams, ordered.shape[1])
        assert order is not None
        return torch.empty_like(ordered).index_copy_(1, order, ordered)

    def pack(
        self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The tensors of each part, and the mask."""
        n = self.base.n_salient(codes.shape[1])
        tensors: dict[str, torch.Tensor] = {}
        for part, grid, at, unit in (
            ("salient", _WIDE, slice(0, n), slice(0, 1)),
            ("binary", _NARROW, slice(n, None), slice(-1, None)),
        ):
            own = {key: qparams[key][:, unit].contiguous() for key in ("scale", "zero_point")}
            packed = grid.pack(codes[:, at], own)
            tensors |= {f"{part}_{key}": tensor for key, tensor in packed.items()}
        return tensors | {_MASK: qparams[_MASK]}

    def unpack(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, int]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Codes of the columns in order, parameters by unit."""
        import torch

        codes, parameters = [], []
        names = zip(("salient_", "binary_"), self.parts(shape), strict=True)
        for part, (grid, n_columns) in names:
            own = {k.removeprefix(part): t for k, t in tensors.items() if k.startswith(part)}
            found, qparams = grid.unpack(own, (shape[0], n_columns))
            codes.append(found)
            parameters.append({k: t.expand(-1, n_columns // UNIT) for k, t in qparams.items()})
        joined = {k: torch.cat([each[k] for each in parameters], dim=1) for k in parameters[0]}
        return torch.cat(codes, dim=1), joined | {_MASK: tensors[_MASK]}


def _clipped(weight: torch.Tensor, heavy: torch.Tensor) -> dict[str, torch.Tensor]:
    """4-bit parameters per row at the clip of least weighted error."""
    import torch

    best, least = torch.ones(len(weight), 1, device=weight.device), None
    for clip in _CLIPS:
        qparams = _WIDE.qparams(weight, clip)
        scale, _ = _WIDE.affine(qparams)
        error = (_WIDE.decode(_WIDE.encode(weight, qparams), qparams) - weight) / scale.abs().amax()
        loss = (error.square() * heavy).sum(dim=1, keepdim=True)
        if least is not None:
            best = best.where(loss >= least, clip)
        least = loss if least is None else least.minimum(loss)
    return _WIDE.qparams(weight, best)


def _two_means(weight: torch.Tensor, heavy: torch.Tensor) -> dict[str, torch.Tensor]:
    """1-bit parameters per row: the means of the weights below and above their midpoint."""
    unit = weight.abs().amax(dim=1, keepdim=True).clamp(min=2.0**-126)
    scaled = weight / unit
    heavy = heavy.expand_as(scaled)
    middle = (scaled * heavy).sum(1, keepdim=True) / heavy.sum(1, keepdim=True)
    low = high = middle
    for _ in range(8):
        above = (scaled > middle).float() * heavy
        below = heavy - above
        low = (scaled * below).sum(1, keepdim=True) / below.sum(1, keepdim=True).clamp(min=1e-30)
        high = (scaled * above).sum(1, keepdim=True) / above.sum(1, keepdim=True).clamp(min=1e-30)
        middle = (low + high) / 2
    low, high = low.clamp(max=0) * unit, high.clamp(min=0) * unit
    scale = float16_scale(high - low)
    zero_point = (-low / scale.float()).clamp(0, 1).to(scale.dtype)
    return {"scale": scale, "zero_point": zero_point}
