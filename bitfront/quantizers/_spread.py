"""Spread: what the error of a rounded column asks of the columns after it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bitfront.errors import InvalidArgument
from bitfront.quantizers.base import by_row

LARGEST_DAMPING = 10.0


@dataclass(frozen=True, eq=False)
class Spread:
    """Upper triangular U with (H + damping)^-1 = U^T U, of all rows or of each group of rows.

    Columns and errors are `[n_columns, n_rows]`: a column of the weight is contiguous.

    Args:
        factor: U, float32 `[n_columns, n_columns]`, or `[n_groups, n_columns, n_columns]`.
    """

    factor: torch.Tensor

    @classmethod
    def of(cls, hessian: torch.Tensor, damping: float) -> Spread:
        """U is the inverse of one Cholesky factor of H with rows and columns reversed.

        Args:
            hessian: H, or that of each group.
            damping: added to the diagonal, as a fraction of its mean; raised tenfold, up to 10,
                where the Hessian is not positive definite.

        Raises:
            InvalidArgument: no damping makes it positive definite.
        """
        diagonal = hessian.diagonal(dim1=-2, dim2=-1).clone()
        dead = diagonal <= 0
        mean = diagonal.clamp(min=0).mean(dim=-1, keepdim=True)
        mean = mean.clamp(min=torch.finfo(torch.float32).tiny)
        live = hessian.masked_fill(dead[..., None] | dead[..., None, :], 0)
        while damping <= LARGEST_DAMPING:
            damped = live.clone()
            kept = torch.where(dead, mean, diagonal) + damping * mean
            damped.diagonal(dim1=-2, dim2=-1).copy_(kept)
            factor, failed = torch.linalg.cholesky_ex(damped.flip(-2, -1))
            if not failed.any():
                eye = torch.eye(factor.shape[-1], device=factor.device).expand_as(factor)
                inverse = torch.linalg.solve_triangular(factor, eye, upper=False)
                return cls(inverse.flip(-2, -1))
            damping *= 10
        raise InvalidArgument(
            f"The Hessian of shape {tuple(hessian.shape)} is not positive definite even with "
            f"damping {LARGEST_DAMPING:g}: it is no mean of x x^T; measure it again."
        )

    @property
    def inverse_diagonal(self) -> torch.Tensor:
        """[H^-1]_jj with damping, `[n_columns]`, or of each group."""
        return self.factor.square().sum(dim=-2)

    def within(self, first: int, column: int, errors: torch.Tensor) -> torch.Tensor:
        """What columns from `first` on pass on to a later one, `[n_rows]`; errors are theirs."""
        factors = self.factor[..., first : first + len(errors), column]
        if factors.ndim == 1:
            return factors @ errors
        return (by_row(factors, errors.shape[1]).T * errors).sum(dim=0)

    def divided(self, residual: torch.Tensor, column: int) -> torch.Tensor:
        """The residual of a column, `[n_rows]`, in place over U_jj: its error."""
        own = self.factor[..., column, column]
        return residual.div_(own if own.ndim == 0 else by_row(own[:, None], len(residual))[:, 0])

    def pass_on(self, error: torch.Tensor, column: int, later: torch.Tensor, first: int) -> None:
        """Take what an error `[n_rows]` asks for off later columns, which begin at `first`."""
        factors = self.factor[..., column, first : first + len(later)]
        if factors.ndim == 1:
            later.addr_(factors, error, alpha=-1)
        else:
            later.sub_(by_row(factors, len(error)).T * error)

    def pass_all(self, errors: torch.Tensor, first: int, later: torch.Tensor) -> None:
        """Take what the errors of a block of columns ask for off all columns after it.

        Args:
            errors: of columns that begin at `first`.
            first: the first column of the block.
            later: those after the block.
        """
        stop = first + len(errors)
        factors = self.factor[..., first:stop, stop:]
        if factors.ndim == 2:
            later.addmm_(factors.T, errors, alpha=-1)
        else:
            by_group = errors.reshape(len(errors), len(factors), -1)
            later.sub_(torch.einsum("gkc,kgr->cgr", factors, by_group).flatten(1))
