"""What the inputs of a layer are rounded to as a model runs, token by token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from bitfront.formats._scales import BlockScaled
from bitfront.formats.base import GROUP_SIZES, Format
from bitfront.formats.fp8 import Fp8
from bitfront.formats.int_grouped import IntGrouped
from bitfront.formats.mxfp4 import Mxfp4
from bitfront.formats.mxfp6 import Mxfp6
from bitfront.formats.mxfp8 import Mxfp8
from bitfront.formats.nvfp4 import Nvfp4

if TYPE_CHECKING:
    import torch

_TOP = 15
"""Exponent of what the largest number of a token is brought below."""


@dataclass(frozen=True)
class Activation:
    """Inputs `[..., n_columns]` in a grid of weights, each token a row with scales of its own.

    Scales are found as the model runs, from the token alone ("dynamic, per token"): nothing is
    calibrated, and what a token becomes depends neither on its batch nor on later tokens. So the
    scale per matrix that nvfp4 has is one per token here. Float16 scales are those of the token
    over a power of two, so that none saturates; a token that is not finite becomes NaN.

    Of a convolution an image is the token (`kernels.weights.rounded_images`).

    Args:
        name: as it stands behind `_a` in the name of a pair.
        grid: rounds `[n_tokens, n_columns]` as if that were a weight.
    """

    name: str
    grid: Format

    @property
    def num_bits(self) -> int:
        """Bits of a number, without scales."""
        return self.grid.num_bits

    def fits(self, n_columns: int) -> bool:
        """Whether a token of so many channels is whole groups."""
        return self.grid.fits((1, n_columns))

    def rounded(self, inputs: torch.Tensor) -> torch.Tensor:
        """The numbers that are multiplied, of the dtype and shape of the inputs."""
        import torch

        rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        if not rows.numel():  # an expert that no token goes to
            return inputs.detach().clone()
        largest = rows.abs().amax(dim=1, keepdim=True)
        finite, unit = largest.isfinite(), self._unit(largest)
        made = self._on_grid((rows / unit).where(finite, 0.0)) * unit
        top = torch.finfo(inputs.dtype).max  # which the grid may round beyond
        made = made.clamp_(-top, top).where(finite, torch.nan)
        return made.reshape(inputs.shape).to(inputs.dtype)

    def _unit(self, largest: torch.Tensor) -> torch.Tensor:
        """What tokens with these largest numbers are counted in, of the same shape."""
        import torch

        if isinstance(self.grid, BlockScaled):
            # Rows of one size have one scale per matrix, which each would have alone.
            unit = largest.where(largest.isfinite(), 1.0)
        else:
            # A power of two, which changes no number, and keeps scales in the range of float16.
            exponent = torch.frexp(largest.nan_to_num(1.0, posinf=1.0)).exponent - _TOP
            unit = torch.exp2(exponent.clamp(min=-126).float())
        return unit.where(largest > 0, 1.0)

    def _on_grid(self, rows: torch.Tensor) -> torch.Tensor:
        qparams = self.grid.qparams(rows)
        return self.grid.decode(self.grid.encode(rows, qparams), qparams)


def _activations() -> dict[str, Activation]:
    grids: dict[str, Format] = {}
    for bits in (8, 4):
        grids[f"int{bits}"] = IntGrouped(bits, None, symmetric=True)
        grids[f"int{bits}_asym"] = IntGrouped(bits, None)
        for size in GROUP_SIZES:
            grids[f"int{bits}_g{size}"] = IntGrouped(bits, size, symmetric=True)
    grids |= {"fp8": Fp8(), "mxfp8": Mxfp8(), "mxfp6": Mxfp6(2), "mxfp4": Mxfp4(), "nvfp4": Nvfp4()}
    return {name: Activation(name, grid) for name, grid in grids.items()}


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(_activations())
"""By name. Integers have one scale per token, symmetric, or as the name says: `_asym` with a zero
point, `_g32` to `_g128` symmetric in groups of channels. fp8 is e4m3 with one scale per token; the
rest are blocks of 32 (mxfp8 in e4m3, mxfp6 in e2m3, mxfp4) or 16 channels (nvfp4)."""
