"""Integers of which some groups have more levels than others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from bitfront.formats.base import Format

if TYPE_CHECKING:
    import torch

_ALL = slice(None)


class Widths(Format):
    """A format of integers from 0 up to a largest code that depends on the group."""

    in_planes: ClassVar[bool] = False

    @abstractmethod
    def tops(self, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Largest code of each group, float32 `[n_groups]`."""

    def levels(self) -> tuple[float, ...]:
        """None that all groups share."""
        return ()

    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scale and zero point in float32."""
        return qparams["scale"].float(), qparams["zero_point"].float()

    def nearest_in(
        self,
        scaled: torch.Tensor,
        qparams: Mapping[str, torch.Tensor],
        rows: slice = _ALL,
        groups: slice = _ALL,
    ) -> torch.Tensor:
        """Codes by rounding, up to the largest of their group."""
        import torch

        return self._rounded(scaled, qparams, groups).to(torch.uint8)

    def values_in(
        self,
        codes: torch.Tensor,
        qparams: Mapping[str, torch.Tensor],
        rows: slice = _ALL,
        groups: slice = _ALL,
    ) -> torch.Tensor:
        """Codes as numbers."""
        return codes.float()

    def rounded_in(
        self, scaled: torch.Tensor, qparams: Mapping[str, torch.Tensor], rows: slice = _ALL
    ) -> torch.Tensor:
        """Nearest integers, up to the largest of their group."""
        return self._rounded(scaled, qparams)

    def _rounded(
        self, scaled: torch.Tensor, qparams: Mapping[str, torch.Tensor], groups: slice = _ALL
    ) -> torch.Tensor:
        import torch

        return torch.minimum(scaled.round().clamp_(min=0), self.tops(qparams)[groups, None])
