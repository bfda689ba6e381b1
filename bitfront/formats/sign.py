"""One bit: the sign of each weight times a float16 scale per group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from bitfront.errors import InvalidArgument
from bitfront.formats.base import GROUP_SIZES, GroupScaled, float16_scale

if TYPE_CHECKING:
    import torch

_ALLOWED = (*GROUP_SIZES, None)


@dataclass(frozen=True)
class Sign(GroupScaled):
    """Levels -1 and 1; the scale of least squared error is the mean size of the group's weights.

    What is left of a fine-tuned model once its base is taken away survives this better than weights
    do: BitDelta (Liu et al. 2024, arXiv:2402.10193, section 3.1) keeps one scale for each matrix;
    here it is one per group or row, as storage of 16 bits a row is 0.004 bits a weight at 4,096
    columns. The paper then trains its scales against the fine-tuned model, which is not done.
    `sign_g64` takes 1.25 bits per weight, and kernels multiply by it. Of whole weights, prefer
    `int2_g64` or `ternary_g64`.

    Args:
        group_size: columns that share a scale: 32, 64, 128, or None for the whole row.
    """

    group_size: int | None = 64  # type: ignore[assignment]  # a row is a group here
    num_bits: int = field(default=1, init=False)
    learned: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.group_size not in _ALLOWED:
            raise InvalidArgument(
                f"Group size {self.group_size} of sign is not 32, 64, 128 or None (the whole row)."
            )

    @property
    def name(self) -> str:
        """`sign_g64`, `sign_channel`."""
        return "sign_channel" if self.group_size is None else f"sign_g{self.group_size}"

    @classmethod
    def catalogue(cls) -> tuple[Sign, ...]:
        """Group 32, 64 and 128, channel."""
        return tuple(map(cls, _ALLOWED))

    def levels(self) -> tuple[float, ...]:
        """-1, 1."""
        return -1.0, 1.0

    def qparams(
        self,
        weight: torch.Tensor,
        clip: float | torch.Tensor = 1.0,
        importance: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Mean size of each group, weighted by the importance of columns, times `clip`."""
        size = weight.abs().double().reshape(len(weight), -1, self.group_size or weight.shape[1])
        if importance is None:
            return {"scale": float16_scale(size.mean(dim=2) * clip)}
        by_row = importance if importance.ndim == 2 else importance[None]
        heavy = by_row.double().reshape(len(by_row), *size.shape[1:])
        heavy = heavy + importance.mean().clamp(min=1e-30) * 1e-6  # columns that no input reaches
        return {"scale": float16_scale((size * heavy).sum(dim=2) / heavy.sum(dim=2) * clip)}

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Half the largest size of the group."""
        return {"scale": float16_scale((-low).maximum(high) * clip / 2)}
