"""bfloat16: the unquantized reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from bitfront.formats.base import Format, StoredTensor

if TYPE_CHECKING:
    import torch

_LARGEST = 3.3895313892515355e38  # float32 above it would round to infinity


@dataclass(frozen=True)
class Bf16(Format):
    """The weight itself in bfloat16: 16 bits, no scale; the "codes" are the bfloat16 values."""

    num_bits: int = field(default=16, init=False)
    scaled: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """`bf16`."""
        return "bf16"

    @property
    def group_columns(self) -> int | None:
        """No groups."""
        return None

    @classmethod
    def catalogue(cls) -> tuple[Bf16, ...]:
        """One format."""
        return (cls(),)

    def levels(self) -> tuple[float, ...]:
        """None: values are not listed."""
        return ()

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """None."""
        return {}

    def stored(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """One bfloat16 tensor."""
        return {"weight": StoredTensor(shape, "bfloat16")}

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
        """Bfloat16 `[n_rows, n_columns]`."""
        import torch

        return weight.clamp(-_LARGEST, _LARGEST).to(torch.bfloat16)

    def decode(self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Float32 `[n_rows, n_columns]`."""
        return codes.float()

    def pack(
        self, codes: torch.Tensor, qparams: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The bfloat16 tensor as it is."""
        return {"weight": codes}

    def unpack(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, int]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The bfloat16 tensor as it is."""
        return tensors["weight"], {}
