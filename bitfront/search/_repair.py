"""Any choice made to fit the limits, by a loss table, with what is left spent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitfront.problem import Problem

Floats = NDArray[np.float64]
Choice = NDArray[np.int64]

_MAX_PASSES = 64


def repaired(problem: Problem, choice: Choice, loss: Floats) -> Choice | None:
    """The choice with the fewest losses added until every limit holds, then the leftover spent.

    Each pass ranks the best change of every group by loss per cost and takes as many as it needs;
    passes end when nothing is over or nothing fits. `None` when the limits cannot be reached so.
    Any number of limits.

    Args:
        problem: with the limits to meet.
        choice: `[n_groups]`, allowed formats.
        loss: the table to judge changes by, `[n_groups, n_formats]`.
    """
    choice = choice.copy()
    for limit in range(len(problem.limit_values)):
        for _ in range(_MAX_PASSES):
            if _over(problem, choice)[limit] <= 0 or not _lower(problem, choice, loss, limit):
                break
    if (_over(problem, choice) > 0).any():
        return None
    for _ in range(_MAX_PASSES):
        if not _spend(problem, choice, loss):
            break
    return choice if problem.is_feasible(choice) else None


def _over(problem: Problem, choice: Choice) -> Floats:
    """How far each limit is exceeded, `[n_limits]`; negative below it."""
    rows = np.arange(len(choice))
    over: Floats = problem.group_costs[:, rows, choice].sum(axis=1) - problem.limit_values
    return over


def _changes(problem: Problem, choice: Choice, loss: Floats) -> tuple[Floats, Floats]:
    """Costs `[n_limits, n_groups, n_formats]` and loss that every format adds; allowed ones."""
    rows = np.arange(len(choice))
    costs = problem.group_costs
    allowed = problem.space.group_allowed
    dearer = np.where(allowed, costs, 0.0) - costs[:, rows, choice][:, :, None]
    finite = np.where(allowed, loss, 0.0)
    added = np.where(allowed, finite - finite[rows, choice][:, None], np.inf)
    return dearer, added


def _lower(problem: Problem, choice: Choice, loss: Floats, limit: int) -> bool:
    """One pass of changes that lower a cost and raise no other; whether there were any."""
    dearer, added = _changes(problem, choice, loss)
    saved = -dearer[limit]
    useful = (saved > 0) & np.isfinite(added) & (dearer <= 0).all(axis=0)
    price = np.full(added.shape, np.inf)
    np.divide(added, saved, out=price, where=useful)
    column = price.argmin(axis=1)
    rows = np.flatnonzero(useful.any(axis=1))
    rows = rows[np.argsort(price[rows, column[rows]], kind="stable")]
    relief = np.cumsum(saved[rows, column[rows]])
    n_needed = int(np.searchsorted(relief, _over(problem, choice)[limit])) + 1
    choice[rows[:n_needed]] = column[rows[:n_needed]]
    return bool(len(rows))


def _spend(problem: Problem, choice: Choice, loss: Floats) -> bool:
    """One pass of changes that lower the loss within the limits; whether there were any."""
    spare = -_over(problem, choice)
    dearer, added = _changes(problem, choice, loss)
    useful = (added < 0) & (dearer <= spare[:, None, None]).all(axis=0)
    share = np.maximum(dearer / np.maximum(problem.limit_values, 1.0)[:, None, None], 0.0)
    rate = np.where(useful, -added / np.maximum(share.sum(axis=0), 1e-12), -np.inf)
    column = rate.argmax(axis=1)
    rows = np.flatnonzero(useful.any(axis=1))
    rows = rows[np.argsort(-rate[rows, column[rows]], kind="stable")]
    spent = np.cumsum(np.maximum(dearer[:, rows, column[rows]], 0.0), axis=1)
    n_taken = int((spent <= spare[:, None]).all(axis=0).sum())
    choice[rows[:n_taken]] = column[rows[:n_taken]]
    return n_taken > 0
