"""Optuna's samplers over vectors: a study in memory, rebuilt from the past, silent."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution

from bitfront.search._corrections import BOUND

Floats = NDArray[np.float64]


@contextmanager
def quiet() -> Iterator[None]:
    """No messages of Optuna's, and no warnings that what is used may change."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def seed_of(rng: np.random.Generator) -> int:
    """A seed for a sampler."""
    return int(rng.integers(2**31 - 1))


def distributions(n_features: int, bound: float = BOUND) -> dict[str, BaseDistribution]:
    """The parameters of a vector."""
    one = FloatDistribution(-bound, bound)
    return {f"x{index:03d}": one for index in range(n_features)}


def params_of(vector: Floats) -> dict[str, float]:
    """A vector as parameters."""
    names = distributions(len(vector))
    return {name: float(value) for name, value in zip(names, vector, strict=True)}


def frozen(vectors: Floats, scores: Floats, bound: float = BOUND) -> list[optuna.trial.FrozenTrial]:
    """Finished trials of Optuna's."""
    known = distributions(vectors.shape[1], bound)
    return [
        optuna.trial.create_trial(params=params_of(v), distributions=known, value=float(s))
        for v, s in zip(vectors, scores, strict=True)
    ]


class VectorStudy:
    """Vectors from a sampler of Optuna's.

    Args:
        sampler: seeded.
        vectors: of the past, `[n, n_features]`.
        scores: of the past, `[n]`.
        bound: how far samples go; vectors of the past that go farther are clipped.
    """

    def __init__(
        self,
        sampler: optuna.samplers.BaseSampler,
        vectors: Floats,
        scores: Floats,
        bound: float = BOUND,
    ) -> None:
        self._distributions = distributions(vectors.shape[1], bound)
        with quiet():
            self._study = optuna.create_study(sampler=sampler)
            self._study.add_trials(frozen(np.clip(vectors, -bound, bound), scores, bound))

    def sample(self) -> Floats:
        """The next vector; those not yet scored count as running."""
        with quiet():
            self._trial = self._study.ask(self._distributions)
        return np.array([self._trial.params[name] for name in self._distributions])

    def learn(self, score: float) -> None:
        """Score the last vector."""
        with quiet():
            self._study.tell(self._trial, score)

    def replay(self, vectors: Floats, scores: Floats) -> None:
        """Let the sampler go through trials as if it had proposed them."""
        with quiet():
            for vector, score in zip(vectors, scores, strict=True):
                self._study.enqueue_trial(params_of(vector))
                self._study.tell(self._study.ask(self._distributions), float(score))
