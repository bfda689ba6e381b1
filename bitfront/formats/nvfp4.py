"""NVIDIA's 4-bit floats: e2m1 with an e4m3 scale per 16 columns and a float32 scale per matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitfront.formats.base import Float4, StoredTensor, group_shape

if TYPE_CHECKING:
    import torch

LARGEST_SCALE, SMALLEST_SCALE = 448.0, 2.0**-9  # of e4m3, zero left out


@dataclass(frozen=True)
class Nvfp4(Float4):
    """e2m1 levels times an e4m3 scale per 16 columns times one float32 scale: 4.5 bits per weight.

    global = largest size in the matrix / (6 * 448); scale = largest size in the group / 6 / global
    (NVIDIA, "Pretraining Large Language Models with NVFP4", arXiv:2509.25149, appendix B).
    Prefer it on Blackwell; elsewhere `int4_g64` costs the same.
    """

    @property
    def name(self) -> str:
        """`nvfp4`."""
        return "nvfp4"

    @property
    def group_columns(self) -> int | None:
        """16, as the format fixes."""
        return 16

    @classmethod
    def catalogue(cls) -> tuple[Nvfp4, ...]:
        """One format."""
        return (cls(),)

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """e4m3 scale per group, float32 scale per matrix."""
        return {
            "scale": StoredTensor(group_shape(shape, 16), "float8_e4m3fn"),
            "global_scale": StoredTensor((1,), "float32"),
        }

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Both scales; only the one per group follows the clip."""
        import torch

        size = (-low).maximum(high) / 6
        global_scale = (size.max() / LARGEST_SCALE).clamp_(min=1e-30)
        scale = (size * clip / global_scale).clamp_(SMALLEST_SCALE, LARGEST_SCALE)
        return {
            "scale": scale.to(torch.float8_e4m3fn),
            "global_scale": global_scale.reshape(1),
        }

    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Product of both scales in float32."""
        return qparams["scale"].float() * qparams["global_scale"], None
