"""Where searches begin: the solver's front."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitfront.allocation import Allocation
from bitfront.problem import Problem
from bitfront.search.sweep import Sweep
from bitfront.trial import Trial


def warm_start(
    problem: Problem,
    history: Sequence[Trial],
    n: int,
    rng: np.random.Generator,
    n_points: int,
    spread: float,
) -> list[Allocation]:
    """At most `n` points of the solver's front, while fewer than `n_points` were proposed at all.

    Args:
        problem: as in `Search.ask`.
        history: as in `Search.ask`; proposals of other searches count.
        n: how many are wanted.
        rng: as in `Search.ask`.
        n_points: with how many a search begins; 0 for none.
        spread: how far they go from the budget, as a fraction of it.
    """
    n_proposed = sum(trial.origin != "uniform" for trial in history)
    wanted = min(n, n_points - n_proposed)
    return Sweep(spread=spread).ask(problem, history, wanted, rng) if wanted > 0 else []
