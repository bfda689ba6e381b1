"""SliM-LLM: groups of columns get their widths and scales by what they do to the output."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bitfront.formats.base import Format
from bitfront.formats.mixed import Mixed
from bitfront.quantizers.base import best_clip, group_error
from bitfront.quantizers.gptq import Gptq


@dataclass(frozen=True)
class Slim(Gptq):
    """`gptq` with widths and scales chosen by salience.

    What an error in column j costs, after the columns that follow have made up for it, is its
    square over [H^-1]_jj; `gptq` looks for clips by H_jj, what it costs before. Here clips have the
    least squared error over [H^-1]_jj, and in a format of several widths the groups of columns with
    the largest one, all rounded to the middle width, get the wide codes, those with the smallest
    the narrow ones. SliM-LLM (Huang et al. 2024, arXiv:2405.14917, sections 3.2 and 3.3) ranks
    groups by the mean of W_ij^2 / [H^-1]_jj^2, searches for how many are wide, which the format
    fixes here, and weighs salient weights apart. Cost: that of `gptq`. Prefer it for formats of
    several widths, and at 2 bits.
    """

    def _qparams(
        self,
        weight: torch.Tensor,
        format: Format,
        importance: torch.Tensor,
        inverse: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Parameters by salience; arguments as of `Gptq`."""
        inverse = inverse.clamp(min=torch.finfo(inverse.dtype).tiny)
        costs = 1 / inverse
        if not isinstance(format, Mixed):
            clip = best_clip(weight, format, self.clip_steps, self.min_clip, costs)
            return format.qparams(weight, clip, costs)
        low, high = format.group_range(weight)
        middle = format.grids()[1]
        clip = best_clip(weight, middle, self.clip_steps, self.min_clip, costs)
        rounded = middle.qparams_of_range(low, high, clip)
        salience = group_error(weight, middle, rounded, costs).sum(dim=0)
        order = format.order(salience)
        clips = torch.ones_like(low)
        for _, grid, groups in format.split(order):
            columns = format.columns(groups)
            own = weight.index_select(1, columns)
            clip = best_clip(own, grid, self.clip_steps, self.min_clip, costs[..., columns])
            clips[:, groups] = clips[:, groups] * clip
        return format.qparams_in_order(order, low, high, clips)
