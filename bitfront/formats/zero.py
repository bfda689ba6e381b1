"""No bits: every weight is zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from bitfront.formats.base import Format, StoredTensor

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Zero(Format):
    """Nothing is stored and every weight is zero: of a difference, that the base stays as it is.

    For studies with a base, where a layer that fine-tuning hardly moved needs no bytes at all. A
    weight itself cannot be left out, so that studies without a base refuse it.
    """

    num_bits: int = field(default=0, init=False)
    scaled: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """`zero`."""
        return "zero"

    @property
    def group_columns(self) -> int | None:
        """No groups."""
        return None

    @classmethod
    def catalogue(cls) -> tuple[Zero, ...]:
        """One format."""
        return (cls(),)

    def levels(self) -> tuple[float, ...]:
        """None: there are no codes."""
        return ()

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """None."""
        return {}

    def stored(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """None."""
        return {}

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """None."""
        return {}

    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scale 1 for everything."""
        import torch

        return torch.ones(1, 1), None

    def encode(self, weight: torch.Tensor, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Zeros, uint8 `[n_rows, n_columns]`."""
        import torch

        return torch.zeros(weight.shape, dtype=torch.uint8, device=weight.device)

    def decode(self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Float32 zeros `[n_rows, n_columns]`."""
        return codes.float()

    def pack(
        self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Nothing."""
        return {}

    def unpack(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, int]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Zeros."""
        import torch

        return torch.zeros(shape, dtype=torch.uint8), {}
