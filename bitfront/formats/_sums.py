"""Grids that are fitted to each group: levels that are sums of a few numbers, some of them or none.

A weight is `sum over i of c_i b_i` with coefficients c_i of its group and digits b_i of its own,
from which a code is made: `digits[code]` has them all. The fit alternates between the nearest
levels for given coefficients and, by least squares, the best coefficients for given levels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from bitfront.formats.base import FLOAT16_MAX, Format, StoredTensor

if TYPE_CHECKING:
    import torch

_ALL = slice(None)
_CHUNK_WEIGHTS = 1 << 18


class GroupGrid(Format):
    """A format whose levels are `digits @ coefficients`, with float16 coefficients per group.

    Stored: the codes, and `coefficients [n_rows, n_groups * n_digits]`.
    """

    learned: ClassVar[bool] = True
    in_planes: ClassVar[bool] = False
    group_size: int
    n_iterations: ClassVar[int] = 12

    @property
    def group_columns(self) -> int | None:
        """The group size."""
        return self.group_size

    @abstractmethod
    def digits(self) -> tuple[tuple[float, ...], ...]:
        """Digits of each code, `[n_levels][n_digits]`."""

    @abstractmethod
    def starts(self, low: torch.Tensor, high: torch.Tensor) -> list[torch.Tensor]:
        """Coefficients that fits begin from, each `[n_rows, n_groups, n_digits]`."""

    def levels(self) -> tuple[float, ...]:
        """None that all groups share."""
        return ()

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Coefficients of each group."""
        n_groups = shape[1] // self.group_size
        n_digits = len(self.digits()[0])
        return {"coefficients": StoredTensor((shape[0], n_groups * n_digits), "float16")}

    def qparams(
        self,
        weight: torch.Tensor,
        clip: float | torch.Tensor = 1.0,
        importance: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Fitted coefficients; there is no range to clip."""
        import torch

        step = max(1, _CHUNK_WEIGHTS // weight.shape[1])
        if importance is not None and importance.ndim == 1:
            importance = importance[None]
        parts = []
        for start in range(0, len(weight), step):
            rows = slice(start, start + step)
            counted = importance
            if importance is not None and len(importance) > 1:
                counted = importance[rows]
            parts.append(self._fitted(weight[rows], counted))
        return {"coefficients": torch.cat(parts)}

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """The first start for a range, unfitted."""
        return {"coefficients": _half(self.starts(low * clip, high * clip)[0])}

    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ones: levels are weights already."""
        import torch

        coefficients = qparams["coefficients"]
        n_groups = coefficients.shape[1] // len(self.digits()[0])
        return torch.ones(len(coefficients), n_groups, device=coefficients.device), None

    def nearest_in(
        self,
        scaled: torch.Tensor,
        qparams: Mapping[str, torch.Tensor],
        rows: slice = _ALL,
        groups: slice = _ALL,
    ) -> torch.Tensor:
        """Codes of the nearest levels of the group."""
        return _nearest(scaled, self._grid(qparams, rows, groups))

    def values_in(
        self,
        codes: torch.Tensor,
        qparams: Mapping[str, torch.Tensor],
        rows: slice = _ALL,
        groups: slice = _ALL,
    ) -> torch.Tensor:
        """Levels of the group."""
        return self._grid(qparams, rows, groups).gather(2, codes.long())

    def rounded_in(
        self, scaled: torch.Tensor, qparams: Mapping[str, torch.Tensor], rows: slice = _ALL
    ) -> torch.Tensor:
        """Nearest levels of the group."""
        return self.values_in(self.nearest_in(scaled, qparams, rows), qparams, rows)

    def _grid(
        self, qparams: Mapping[str, torch.Tensor], rows: slice = _ALL, groups: slice = _ALL
    ) -> torch.Tensor:
        """Levels `[rows, groups, n_levels]`."""
        import torch

        digits = torch.tensor(self.digits(), device=qparams["coefficients"].device)
        coefficients = qparams["coefficients"][rows].float()
        by_group = coefficients.reshape(len(coefficients), -1, digits.shape[1])[:, groups]
        return by_group @ digits.T

    def _fitted(self, weight: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
        """Float16 coefficients `[n_rows, n_groups * n_digits]` of the least error met."""
        import torch

        groups = weight.reshape(len(weight), -1, self.group_size)
        unit = groups.abs().amax(dim=2, keepdim=True).clamp(min=2.0**-126)
        groups = groups / unit
        heavy = torch.ones_like(groups[:1])
        if importance is not None:
            heavy = importance.reshape(len(importance), -1, self.group_size)
            heavy = heavy / heavy.mean(dim=2, keepdim=True).clamp(min=1e-30) + 1e-6
        digits = torch.tensor(self.digits(), device=weight.device)
        low, high = groups.amin(dim=2).clamp(max=0), groups.amax(dim=2).clamp(min=0)
        best, least = None, torch.full_like(low, torch.inf)
        for coefficients in self.starts(low, high):
            for _ in range(self.n_iterations):
                grid = coefficients @ digits.T
                codes = _nearest(groups, grid).long()
                error = (groups - grid.gather(2, codes)).square_().mul_(heavy).sum(dim=2)
                better = (error < least)[..., None]
                best = coefficients if best is None else torch.where(better, coefficients, best)
                least = least.minimum(error)
                coefficients = _least_squares(groups, digits[codes], heavy)
        assert best is not None
        return _half(best * unit)


def _nearest(weight: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Codes uint8 of the nearest of levels `[rows, groups, n_levels]`."""
    import torch

    rising, order = grid.sort(dim=2)
    marks = (rising[..., 1:] + rising[..., :-1]) / 2
    place = torch.searchsorted(marks.contiguous(), weight.contiguous())
    return order.gather(2, place).to(torch.uint8)


def _least_squares(weight: torch.Tensor, digits: torch.Tensor, heavy: torch.Tensor) -> torch.Tensor:
    """Coefficients `[rows, groups, n_digits]` of least weighted squared error.

    A little of the identity keeps digits that do not occur, or always together, from an exploding
    coefficient (the ridge of PTQTP's section 3.2).
    """
    import torch

    weighted = digits * heavy[..., None]
    gram = weighted.transpose(2, 3) @ digits
    gram.diagonal(dim1=2, dim2=3).add_(1e-4 * digits.shape[2])
    wanted = (weighted * weight[..., None]).sum(dim=2)
    solved: torch.Tensor = torch.linalg.solve(gram, wanted)
    return solved


def _half(coefficients: torch.Tensor) -> torch.Tensor:
    """As stored: float16, the coefficients of a row side by side."""
    import torch

    clamped = coefficients.clamp(-FLOAT16_MAX, FLOAT16_MAX)
    return clamped.to(torch.float16).reshape(len(coefficients), -1)
