"""Several estimators, combined by ranks or by a fit to a few measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import rankdata
from torch import Tensor, nn

from bitfront.errors import InvalidArgument
from bitfront.models.bank import WeightBank
from bitfront.plugins import Plugins
from bitfront.sensitivity._measured import drawn, measured, sums
from bitfront.sensitivity.base import Estimator, estimate_together, shared_passes
from bitfront.space import SearchSpace
from bitfront.table import LayerTable

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Blend(Estimator):
    """Several estimators' tables as one.

        fit:   sum over estimators of c_k T_k,   c >= 0 with least sum over measured allocations of
               (predicted / measured - 1)^2
        rank:  entries in the order of their mean rank, with the sorted values of the first table

    The fit (non-negative least squares) puts tables of any unit into nats and takes what each is
    good at; `n_measured` random allocations around widths from the smallest to the largest are
    measured for it. Ranks need no measurement. Estimators that need the same pass share it.

    Cost: that of the estimators, and `n_measured` x `max_sequences` forward passes for the fit.

    Prefer it where no single estimator is trusted.

    Source: ours; the fit is that of Lawson and Hanson (1974, chapter 23).

    Args:
        estimators: names, joined by "+", with their default parameters.
        by: `"fit"` or `"rank"`.
        n_measured: allocations to measure for the fit.
        max_sequences: how many of the sequences they are measured on.
        seed: of the allocations.
    """

    estimators: str = "fisher_directional+fisher_output+fisher_lowrank"
    by: str = "fit"
    n_measured: int = 12
    max_sequences: int = 4
    seed: int = 0

    needs: ClassVar[str] = "gradients"

    @property
    def in_nats(self) -> bool:  # type: ignore[override]
        """Whether tables are fitted to KL: ranks are no nats, whatever the values of the first."""
        return self.by == "fit"

    def __post_init__(self) -> None:
        if self.by not in {"fit", "rank"}:
            raise InvalidArgument(f"Unknown by {self.by!r}: use 'fit' or 'rank'.")
        if self.n_measured < 2 or self.max_sequences < 1:
            raise InvalidArgument(
                f"n_measured is {self.n_measured}, max_sequences {self.max_sequences}: "
                "give at least 2 and 1."
            )
        for estimator in self._built():
            if not estimator.non_negative:
                raise InvalidArgument(f"{estimator} has entries below zero: blend others.")

    def _built(self) -> list[Estimator]:
        known: Plugins[Estimator] = Plugins("bitfront.sensitivity", "estimator")
        names = [name.strip() for name in self.estimators.split("+") if name.strip()]
        if not names or "blend" in names:
            raise InvalidArgument(f"Cannot blend {self.estimators!r}: join other names by '+'.")
        return [known.build(name) for name in names]

    def estimate(
        self,
        model: nn.Module,
        batches: Tensor,
        space: SearchSpace,
        bank: WeightBank,
        progress: Callable[[int, int], None] | None = None,
    ) -> LayerTable:
        """See `Estimator.estimate`."""
        built = self._built()
        groups = shared_passes(built)
        n_measured = self.n_measured if self.by == "fit" else 0
        n_steps = 100 * len(groups) + n_measured
        made: dict[int, LayerTable] = {}
        for index, group in enumerate(groups):

            def show(done: int, total: int, before: int = 100 * index) -> None:
                if progress is not None:
                    progress(before + 100 * done // total, n_steps)

            found = estimate_together(group, model, batches, space, bank, show)
            made |= {id(x): each.table for x, each in zip(group, found, strict=True)}
        tables = [np.where(space.allowed, made[id(x)].values, 0.0) for x in built]
        if self.by == "rank":
            return self.table(space, by_rank(tables), batches, bank)

        def count(done: int) -> None:
            if progress is not None:
                progress(n_steps - n_measured + done, n_steps)

        choices = drawn(space, self.n_measured, self.seed)
        kl = measured(model, batches[: self.max_sequences], space, bank, choices, count)
        weights = fitted([sums(table, choices) for table in tables], kl)
        values = sum(weight * table for weight, table in zip(weights, tables, strict=True))
        return self.table(space, np.asarray(values), batches, bank)


def by_rank(tables: list[Floats]) -> Floats:
    """Entries in the order of their mean rank, with the sorted values of the first table."""
    ranks = np.mean([rankdata(table) for table in tables], axis=0)
    order = np.argsort(ranks, kind="stable")
    values = np.empty(ranks.shape)
    values[order] = np.sort(tables[0], axis=None)
    return values.reshape(tables[0].shape)


def fitted(predicted: list[Floats], kl: Floats) -> Floats:
    """Non-negative weights of predictions, each `[n]`, for the least relative errors of `kl [n]`.

    Where nothing can be fitted (no KL above zero, or predictions of zero), all weigh the same.
    """
    usable = kl > 0
    columns = np.stack(predicted, axis=1)[usable] / kl[usable, None]
    scale = columns.sum(axis=0) / max(len(columns), 1)
    if not (scale > 0).any():
        return np.full(len(predicted), 1 / len(predicted))
    safe = np.where(scale > 0, scale, 1.0)
    weights, _ = nnls(columns / safe, np.ones(len(columns)))
    return np.asarray(np.where(scale > 0, weights, 0.0) / safe)
