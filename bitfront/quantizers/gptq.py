"""GPTQ: round column by column, let the columns that follow make up for each error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from bitfront.errors import InvalidArgument
from bitfront.formats.base import Format
from bitfront.quantizers._spread import LARGEST_DAMPING, Spread
from bitfront.quantizers.base import (
    QuantizedWeight,
    Quantizer,
    best_clip,
    by_row,
    check_clip_search,
    checked_hessian,
    powers,
)


@dataclass(frozen=True)
class Gptq(Quantizer):
    """Codes that lower the output error tr(D H D^T), D = Q(W) - W, by error feedback.

    Columns are rounded in order of falling H_jj; with H^-1 = U^T U, U upper triangular, the error
    of column j is spread over the columns after it (Frantar et al. 2022, "GPTQ: Accurate
    Post-Training Quantization for Generative Pre-trained Transformers", arXiv:2210.17323,
    section 3):

        W[:, j:] -= (W[:, j] - Q(W[:, j])) / U_jj * U[j, j:]

    Scales are fixed before, at the clip of least H_jj-weighted squared error ("static groups"), so
    act-order costs nothing at run time and every format works. U is the inverse of one Cholesky
    factor of H with rows and columns reversed: no explicit H^-1. A column whose input is always
    zero is rounded to nearest. Rows that come in groups with inputs of their own (depthwise
    convolutions) each have the U of their group, in one order of columns. In post-norm
    models (BERT, MPNet) H is the mean of x x^T / |y|^2, y a position's output: a few positions have
    outputs many times as large as the others, the layer norm takes their size off, and the plain
    mean serves them alone. Cost: n_columns^3 + n_rows n_columns^2. Prefer it whenever there is
    calibration text, above all at 2 to 4 bits.

    Args:
        damping: added to the diagonal, as a fraction of its mean; raised tenfold, up to 10, where
            the Hessian is not positive definite.
        act_order: columns of large H_jj first; else as they come.
        block_size: columns whose effect on the later ones is applied in one matrix product.
        clip_steps: clips tried besides 1 for the scales; 0 keeps the whole range.
        min_clip: smallest clip tried.
        relative: whether the error at a position counts relative to |y|^2, y what the layer puts
            out there: H is the mean of x x^T / |y|^2. `None`: in post-norm models.
    """

    needs_hessian: ClassVar[bool] = True

    damping: float = 0.01
    act_order: bool = True
    block_size: int = 128
    clip_steps: int = 8
    min_clip: float = 0.4
    relative: bool | None = field(default=None, repr=False)  # of H, which has its own digest

    def __post_init__(self) -> None:
        if not 0 < self.damping <= LARGEST_DAMPING:
            raise InvalidArgument(f"damping={self.damping} is not above 0 and at most 10.")
        if self.block_size < 1:
            raise InvalidArgument(f"block_size={self.block_size} is below 1.")
        check_clip_search(self.clip_steps, self.min_clip)

    def rounded(
        self, weight: torch.Tensor, format: Format, hessian: torch.Tensor | None
    ) -> QuantizedWeight:
        """Quantize one matrix with the Hessian of its input.

        Raises:
            NonFinite: the weight or the Hessian holds NaN or infinity.
            InvalidArgument: no Hessian, one of another shape, or one that no damping makes
                positive definite.
        """
        hessian = checked_hessian(hessian, weight).to(weight.device)
        if not format.scaled:
            return QuantizedWeight(format, format.encode(weight, {}), {})
        order = self._order(hessian.diagonal(dim1=-2, dim2=-1), format.columns_per_code)
        spread = Spread.of(hessian[..., order, :][..., order], self.damping)
        found = spread.inverse_diagonal
        inverse = by_row(torch.empty_like(found).index_copy_(-1, order, found), len(weight))
        qparams = self._qparams(weight, format, powers(hessian, len(weight)), inverse)
        codes = self._feedback(weight, format, qparams, order, spread)
        return QuantizedWeight(format, codes, qparams)

    def _qparams(
        self,
        weight: torch.Tensor,
        format: Format,
        importance: torch.Tensor,
        inverse: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Parameters that are fixed before the codes.

        Args:
            weight: float32 `[n_rows, n_columns]`.
            format: of the codes.
            importance: H_jj of each column; of each weight where rows come in groups.
            inverse: [H^-1]_jj alike, with damping.
        """
        clip = best_clip(weight, format, self.clip_steps, self.min_clip, importance)
        return format.qparams(weight, clip, importance)

    def _order(self, importance: torch.Tensor, step: int) -> torch.Tensor:
        """Columns in the order they are rounded in; those of one code stay together.

        Args:
            importance: H_jj of each column, or of each column in each group.
            step: columns of a code.
        """
        if importance.ndim == 2:  # each group counts alike, whatever the size of its inputs
            total = importance.sum(dim=1, keepdim=True).clamp(min=torch.finfo().tiny)
            importance = (importance / total).sum(dim=0)
        columns = torch.arange(len(importance), device=importance.device).reshape(-1, step)
        if self.act_order:
            weight_of_code = importance.reshape(-1, step).sum(dim=1)
            columns = columns[weight_of_code.argsort(descending=True, stable=True)]
        return columns.reshape(-1)

    def _feedback(
        self,
        weight: torch.Tensor,
        format: Format,
        qparams: Mapping[str, torch.Tensor],
        order: torch.Tensor,
        spread: Spread,
    ) -> torch.Tensor:
        """Codes as `Format.encode` gives them, by error feedback in the given order of columns."""
        columns = weight.T[order]  # [n_columns, n_rows]: a column of the weight is contiguous
        n_columns, step = len(columns), format.columns_per_code
        scale, zero_point = (
            None if x is None else x.T.contiguous() for x in format.affine(qparams)
        )
        assert scale is not None
        group_of = (order // (n_columns // len(scale))).tolist()
        codes = torch.empty(n_columns // step, len(weight), dtype=torch.uint8, device=weight.device)
        block_size = -(-self.block_size // step) * step
        for start in range(0, n_columns, block_size):
            stop = min(start + block_size, n_columns)
            errors = torch.empty_like(columns[start:stop])
            for j in range(start, stop, step):
                group = group_of[j]
                scaled = columns[j : j + step] / scale[group]
                if zero_point is not None:
                    scaled += zero_point[group]
                at = slice(group, group + 1)
                chosen = format.nearest_in(scaled.T[:, None], qparams, groups=at)
                values = format.values_in(chosen, qparams, groups=at)[:, 0].T
                codes[j // step] = chosen.reshape(-1)
                residual = scaled.sub_(values).mul_(scale[group])
                for i in range(step):
                    if i:  # what earlier columns of the code pass on is counted, not applied
                        own = errors[j - start : j - start + i]
                        residual[i] -= spread.within(j, j + i, own)
                    errors[j - start + i] = spread.divided(residual[i], j + i)
                    later = columns[j + step : stop]
                    spread.pass_on(errors[j - start + i], j + i, later, j + step)
            spread.pass_all(errors, start, columns[stop:])
        placed = torch.empty_like(codes).index_copy_(0, order[::step] // step, codes)
        return placed.T.contiguous()
