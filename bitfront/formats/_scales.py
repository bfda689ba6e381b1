"""Scales of blocks: a power of two per 32 columns (OCP), e4m3 per 16 of them (NVIDIA)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from math import frexp
from typing import TYPE_CHECKING

from bitfront.formats.base import Format, StoredTensor, group_shape

if TYPE_CHECKING:
    import torch

_BIAS = 127  # E8M0 stores exponent + 127; 255 is NaN
_LARGEST_SCALE, _SMALLEST_SCALE = 448.0, 2.0**-9  # of e4m3, zero left out


class Microscaled(Format):
    """Levels times 2^e, one uint8 exponent (E8M0) per 32 columns.

    OCP Microscaling Formats 1.0, section 5.3. The exponent is the least that covers the group,
    e = ceil(log2(largest size / largest level)); the specification's conversion (section 6.3)
    rounds down instead and saturates what lies above the largest level, which is this one at a
    lower clip, so a quantizer with a clip search tries both.
    """

    @property
    @abstractmethod
    def largest(self) -> float:
        """Largest level."""

    @property
    def group_columns(self) -> int | None:
        """32, as the specification fixes."""
        return 32

    def stored_qparams(self, shape: tuple[int, int]) -> dict[str, StoredTensor]:
        """E8M0 exponent per group."""
        return {"scale": StoredTensor(group_shape(shape, 32), "uint8")}

    def qparams_of_range(
        self, low: torch.Tensor, high: torch.Tensor, clip: float | torch.Tensor = 1.0
    ) -> dict[str, torch.Tensor]:
        """Biased exponent of the smallest power of two that covers the group."""
        import torch

        extreme = max(map(abs, self.levels()))
        smallest, highest = -126, 128 - frexp(extreme)[1]  # extreme * 2^highest is in float32
        mantissa, exponent = torch.frexp((-low).maximum(high) * clip / self.largest)
        exponent = exponent - (mantissa == 0.5).int()  # frexp: mantissa in [1/2, 1)
        exponent = exponent.masked_fill(mantissa == 0, smallest).clamp_(smallest, highest)
        return {"scale": (exponent + _BIAS).to(torch.uint8)}

    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The power of two in float32."""
        import torch

        return (qparams["scale"].int() << 23).view(torch.float32), None  # the same bias as float32


class BlockScaled(Format):
    """Levels times an e4m3 scale per 16 columns times one float32 scale per matrix.

    NVIDIA, "Pretraining Large Language Models with NVFP4", arXiv:2509.25149, appendix B:
    global = largest size in the matrix / (largest level * 448), scale = extreme of the group /
    level that it falls on / global.
    """

    @abstractmethod
    def whole_range(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """Scale of each group, of either sign, with which the levels cover its range."""

    @property
    def group_columns(self) -> int | None:
        """16, as the format fixes."""
        return 16

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

        whole = self.whole_range(low, high)
        size = whole.abs()
        global_scale = (size.max() / _LARGEST_SCALE).clamp_(min=1e-30)
        scale = (size * clip / global_scale).clamp_(_SMALLEST_SCALE, _LARGEST_SCALE)
        return {
            "scale": torch.copysign(scale, whole).to(torch.float8_e4m3fn),
            "global_scale": global_scale.reshape(1),
        }

    def affine(
        self, qparams: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Product of both scales in float32."""
        return qparams["scale"].float() * qparams["global_scale"], None
