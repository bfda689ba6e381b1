"""Where searches begin: the solver's front below the budget."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from bitfront.allocation import Allocation
from bitfront.problem import Problem
from bitfront.search.base import share_of_limits
from bitfront.search.sweep import Sweep
from bitfront.trial import Trial

_FARTHEST = 0.15


def warm_start(
    problem: Problem,
    history: Sequence[Trial],
    n: int,
    rng: np.random.Generator,
    n_points: int,
    spread: float,
) -> list[Allocation]:
    """At most `n` points of the solver's front, as many of them as are due.

    Args:
        problem: as in `Search.ask`.
        history: as in `Search.ask`.
        n: how many are wanted.
        rng: as in `Search.ask`.
        n_points: as of `n_due`.
        spread: as of `n_due`.
    """
    wanted = min(n, n_due(problem, history, n_points, spread))
    return Sweep(spread=spread).ask(problem, history, wanted, rng) if wanted > 0 else []


def n_due(problem: Problem, history: Sequence[Trial], n_points: int, spread: float) -> int:
    """How many points of the solver's front come before anything else that a search proposes.

    Args:
        problem: as in `Search.ask`.
        history: as in `Search.ask`; proposals of other searches count, those above the budget or
            farther below it than `spread`, or 15 %, do not.
        n_points: with how many a search begins; 0 for none.
        spread: how far they go below the budget, as a fraction of it.
    """
    farthest = max(spread, _FARTHEST)
    known = (trial for trial in history if trial.origin != "uniform")
    near = (t for t in known if 1 - farthest <= share_of_limits(problem, t) <= 1)
    # No more are counted than matter: a cost is a sum over all groups.
    return n_points - sum(1 for _ in islice(near, n_points))
