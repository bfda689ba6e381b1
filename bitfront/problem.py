"""Problem: choose one format per group, smallest loss, every cost within its limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitfront.allocation import Allocation
from bitfront.errors import InfeasibleBudget, InvalidArgument
from bitfront.second import SecondLoss
from bitfront.space import SearchSpace
from bitfront.table import LayerTable


@dataclass(frozen=True, eq=False)
class Problem:
    """A multiple-choice knapsack problem.

    min over choices of sum_g loss[g, c_g]  subject to  sum_g costs[k][g, c_g] <= limits[k].

    Args:
        loss: estimated loss of each layer in each format.
        costs: cost tables on the same space, whole numbers (bytes, code bits).
        limits: quantity of a cost table to the largest allowed sum over the searched layers.
            Cost tables without a limit are only reported.
        slopes: measured first-order change of the loss around allocations, for searches that
            ask for it (`Search.slope_at`).
        pairs: loss that two groups add to the sum of their own, by their indices in rising order,
            `[n_formats, n_formats]` over the formats of the first and of the second. Only the
            `quadratic` solver heeds them.
        n_sequences: how many sequences a trial is measured on; with 1 nothing can be screened.
        screened: measured KL in nats by number of sequences, fewer than those, for searches that
            ask for it (`Search.screen`); infinite where the outputs overflow.
        second: loss by a second metric, for the search `decoupled`.

    Raises:
        InvalidArgument: a limit without a cost table, or tables of different spaces.
        InfeasibleBudget: a limit below the smallest reachable sum.
    """

    loss: LayerTable
    costs: tuple[LayerTable, ...]
    limits: Mapping[str, float]
    slopes: Mapping[Allocation, LayerTable] = field(default_factory=dict)
    pairs: Mapping[tuple[int, int], NDArray[np.float64]] = field(default_factory=dict)
    n_sequences: int = 1
    screened: Mapping[Allocation, Mapping[int, float]] = field(default_factory=dict)
    second: SecondLoss | None = None

    def __post_init__(self) -> None:
        if any(table.space != self.space for table in self.costs):
            raise InvalidArgument("Loss and cost tables are of different search spaces.")
        for pair, values in self.pairs.items():
            self._check_pair(pair, values)
        known = {table.quantity for table in self.costs}
        for quantity, limit in self.limits.items():
            if quantity not in known:
                raise InvalidArgument(
                    f"No cost table {quantity!r} for the limit. "
                    f"Available: {', '.join(sorted(known))}."
                )
            smallest = float(self.cost(quantity).grouped.min(axis=1).sum())
            if not smallest <= limit:
                raise InfeasibleBudget(quantity, limit, smallest)

    def _check_pair(self, pair: tuple[int, int], values: NDArray[np.float64]) -> None:
        n_groups, n_formats = len(self.space.groups), len(self.space.formats)
        known = 0 <= pair[0] < pair[1] < n_groups
        if not known or values.shape != (n_formats, n_formats) or not np.isfinite(values).all():
            raise InvalidArgument(
                f"Cannot use pair {pair} with values of shape {values.shape}: give two of "
                f"{n_groups} groups in rising order and {n_formats} x {n_formats} finite numbers."
            )

    def total_loss(self, choice: NDArray[np.int64]) -> float:
        """Sum of the loss table and of the pairs at a choice `[n_groups]`."""
        pairs = sum(float(v[choice[i], choice[j]]) for (i, j), v in self.pairs.items())
        return self.loss.total(choice) + pairs

    @property
    def space(self) -> SearchSpace:
        """What the rows and columns are."""
        return self.loss.space

    def cost(self, quantity: str) -> LayerTable:
        """The cost table of a quantity."""
        return next(table for table in self.costs if table.quantity == quantity)

    @cached_property
    def group_loss(self) -> NDArray[np.float64]:
        """`[n_groups, n_formats]`, infinite where not allowed."""
        return self.loss.grouped

    @cached_property
    def group_costs(self) -> NDArray[np.float64]:
        """Costs that have a limit, in the order of `limits`: `[n_limits, n_groups, n_formats]`."""
        shape = (len(self.limits), *self.group_loss.shape)
        return np.array([self.cost(q).grouped for q in self.limits]).reshape(shape)

    @cached_property
    def limit_values(self) -> NDArray[np.float64]:
        """`[n_limits]`."""
        return np.array(list(self.limits.values()), dtype=np.float64)

    def is_feasible(self, choice: NDArray[np.int64]) -> bool:
        """Whether formats fit and every limit holds, `choice [n_groups]`."""
        rows = np.arange(len(choice))
        if not np.isfinite(self.group_loss[rows, choice]).all():
            return False
        return bool((self.group_costs[:, rows, choice].sum(axis=1) <= self.limit_values).all())

    def with_limits(self, limits: Mapping[str, float]) -> Problem:
        """The same tables under other limits."""
        return replace(self, limits=limits)

    def with_loss(self, loss: LayerTable) -> Problem:
        """The same costs and limits under another loss table."""
        return replace(self, loss=loss)
