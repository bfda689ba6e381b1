"""Formats that store what is left of a weight, once something is taken out, in another format."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bitfront.formats.base import Format, StoredTensor

if TYPE_CHECKING:
    import torch


class Derived(Format):
    """A format that lays its codes on the grid of another, `base`."""

    @property
    @abstractmethod
    def base(self) -> Format:
        """What the rest is stored in."""

    @property
    def num_bits(self) -> int:
        """Those of `base`."""
        return self.base.num_bits

    @property
    def code_bits(self) -> float:
        """Those of `base`."""
        return self.base.code_bits

    @property
    def group_columns(self) -> int | None:
        """Those of `base`."""
        return self.base.group_columns

    @property
    def columns_per_code(self) -> int:
        """Those of `base`."""
        return self.base.columns_per_code

    def levels(self) -> tuple[float, ...]:
        """Those of `base`."""
        return self.base.levels()

    def stored_beside(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """What was taken out, on disk."""
        return {}

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """Those of `base`, then what was taken out."""
        return self.base.stored_qparams(shape) | self.stored_beside(shape)

    def stored(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """What `base` stores, then what was taken out."""
        return self.base.stored(shape) | self.stored_beside(shape)

    def fits(self, shape: tuple[int, int]) -> bool:
        """Whether `base` does."""
        return self.base.fits(shape)

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Those of `base`."""
        return self.base.qparams_of_range(low, high, clip)

    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Those of `base`."""
        return self.base.affine(qparams)

    def nearest(self, scaled: torch.Tensor) -> torch.Tensor:
        """Those of `base`."""
        return self.base.nearest(scaled)

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        """Those of `base`."""
        return self.base.values(codes)

    def rounded(self, scaled: torch.Tensor) -> torch.Tensor:
        """Those of `base`."""
        return self.base.rounded(scaled)

    def pack(
        self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """As `base` does; what was taken out is stored as it is."""
        return self.base.pack(codes, qparams)

    def unpack(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, int]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """As `base` does."""
        codes, qparams = self.base.unpack(tensors, shape)
        return codes, qparams | {name: tensors[name] for name in self.stored_beside(shape)}
