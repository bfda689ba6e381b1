"""Searches over a short vector of corrections that an exact solver turns into allocations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.search._corrections import BOUND, Corrections
from bitfront.search._record import Choice, Record, key_of, last_resort
from bitfront.search._warm_start import warm_start
from bitfront.search.base import Search
from bitfront.search.sweep import Sweep
from bitfront.solvers import SOLVERS
from bitfront.trial import Trial, TrialState

Floats = NDArray[np.float64]

_SAMPLES = 2
"""Vectors that the sampler is asked for when what they decode to is known."""
_WIDER = 12
"""Vectors tried after these, each farther from the last of them."""


class Sampler(Protocol):
    """Where vectors come from."""

    def sample(self) -> Floats:
        """The next vector, `[n_features]`, in prior standard deviations."""

    def learn(self, score: float) -> None:
        """What the last vector turned out to score."""


@dataclass(frozen=True)
class VectorSearch(Search):
    """The loop that searches over corrections share; a subclass says how vectors are sampled.

    Args:
        solver: name of the solver that decodes a vector.
        prior_sd: standard deviation of a correction, in log units; vectors go to three times that.
        spread: how far every second proposal goes below the budget, as a fraction of it.
        n_warm_start: with how many points of the solver's front the search begins.
    """

    solver: str = "lagrangian"
    prior_sd: float = 0.35
    spread: float = 0.15
    n_warm_start: int = 8

    def __post_init__(self) -> None:
        SOLVERS.load(self.solver)
        if not self.prior_sd > 0 or not 0 <= self.spread < 1 or self.n_warm_start < 0:
            raise InvalidArgument(
                f"prior_sd is {self.prior_sd}, spread {self.spread}, n_warm_start "
                f"{self.n_warm_start}: give prior_sd > 0, 0 <= spread < 1, n_warm_start >= 0."
            )

    @abstractmethod
    def sampler(
        self, vectors: Floats, scores: Floats, n_proposed: int, rng: np.random.Generator
    ) -> Sampler:
        """A sampler that knows the past.

        Args:
            vectors: of the measured choices, oldest first, `[n, n_features]`.
            scores: of the same, smaller is better, `[n]`.
            n_proposed: proposals so far.
            rng: as in `ask`.
        """

    def ask(
        self, problem: Problem, history: Sequence[Trial], n: int, rng: np.random.Generator
    ) -> list[Allocation]:
        """The solver's front, then solved samples; every second one at a smaller limit."""
        spread = self.spread or 0.01
        asked = warm_start(problem, history, n, rng, self.n_warm_start, spread)
        if len(asked) >= n:
            return asked
        record = Record(problem, history, asked)
        corrections = Corrections.of(problem, self.prior_sd, self.solver)
        which, scores = scored(corrections, history, record.choices)
        vectors = corrections.encode(record.choices[index] for index in which)
        known = {key_of(record.choices[i]): float(s) for i, s in zip(which, scores, strict=True)}
        sampler = self.sampler(vectors, scores, record.n_proposed, rng)
        while len(asked) < n:
            found = self._new(corrections, record, sampler, known, rng)
            if found is None:
                left = last_resort(problem, Sweep(self.solver, spread))
                return asked + record.taken(left, n - len(asked))
            record.add(found)
            asked.append(problem.space.decode(found))
        return asked

    def _new(
        self,
        corrections: Corrections,
        record: Record,
        sampler: Sampler,
        known: dict[bytes, float],
        rng: np.random.Generator,
    ) -> Choice | None:
        """The first decoded vector that is new; before all, the table itself in a warm start."""
        begins = record.n_proposed == 0 and self.n_warm_start > 0
        for target in record.targets(self.spread):
            vector = np.zeros(corrections.n_features)
            for attempt in range(-begins, _SAMPLES + _WIDER):
                if 0 <= attempt < _SAMPLES:
                    vector = sampler.sample()
                elif attempt >= _SAMPLES:
                    noise = rng.normal(size=len(vector)) * (attempt - _SAMPLES + 1) / _WIDER
                    vector = np.clip(vector + noise, -BOUND, BOUND)
                choice = corrections.decode(vector, target)
                if record.is_new(choice):
                    return choice
                score = known.get(key_of(choice))
                if score is not None and 0 <= attempt < _SAMPLES:
                    sampler.learn(score)
        return None


def scored(
    corrections: Corrections, history: Sequence[Trial], choices: Sequence[NDArray[np.int16]]
) -> tuple[list[int], Floats]:
    """Which trials say something, and a number for each that is comparable between budgets.

        score(a) = log kl(a) - c - p log L(cost(a))

    L is the loss that the solved table promises at a cost: most of how log kl falls with the
    budget. `c` and `p` are fitted to the trials near the budget, `p` by ridge regression towards 1.
    A failed trial is worse than the worst by as much as that is worse than the median.
    """
    limit = corrections.limit
    which, costs, logs = [], [], []
    for index, trial in enumerate(history):
        failed = trial.state is TrialState.FAIL
        if failed or trial.loss > 0:
            which.append(index)
            costs.append(corrections.costs(choices[index].astype(np.int64)))
            logs.append(np.nan if failed else np.log(trial.loss))
    promised, log_kl = corrections.log_loss(np.array(costs)), np.array(logs)
    fitted = np.isfinite(log_kl)
    if not fitted.any():
        return which, np.zeros(len(which))
    far = (np.array(costs) / limit - 1) / 0.2 if limit else np.zeros(len(costs))
    weight = np.where(fitted, 1 / (1 + far**2), 0.0)
    x = promised - np.average(promised, weights=weight)
    y = np.where(fitted, log_kl, 0.0)
    y = y - np.average(y, weights=weight)
    p = (weight @ (x * y) + 0.1) / (weight @ x**2 + 0.1)
    score = np.where(fitted, y - p * x, np.nan)
    worst, median = np.nanmax(score), np.nanmedian(score)
    return which, np.where(fitted, score, 2 * worst - median + 1e-6)


def kept(scores: Floats, n: int) -> NDArray[np.int64]:
    """Indices of the `n // 2` best and of the latest others, `n` in all, oldest first."""
    best = np.argsort(scores, kind="stable")[: n // 2]
    others = np.setdiff1d(np.arange(len(scores)), best)
    return np.sort(np.concatenate([best, others[-(n - n // 2) :]]))
