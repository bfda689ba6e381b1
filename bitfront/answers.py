"""Answers: what a model makes of multiple-choice items, and how two models' answers differ."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from bitfront.errors import MismatchedArtifact
from bitfront.trial import ANSWERED

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_CONFIDENCE = 0.95
_N_RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Answers:
    """Log-likelihoods of the choices of every item.

    Args:
        log_likelihoods: of each choice after its context, in nats, float64
            `[n_items, most choices]`; minus infinity where an item has fewer.
        n_bytes: of each choice, float64 of the same shape; 1 where an item has fewer.
        right: index of the right choice, int64 `[n_items]`.
    """

    log_likelihoods: Floats
    n_bytes: Floats
    right: NDArray[np.int64]

    @property
    def n(self) -> int:
        """How many items."""
        return len(self.right)

    @cached_property
    def correct(self) -> Bools:
        """Whether the most likely choice is the right one (lm-eval's `acc`), `[n_items]`."""
        return np.asarray(self.log_likelihoods.argmax(axis=1) == self.right)

    @cached_property
    def correct_norm(self) -> Bools:
        """The same by log-likelihood per byte: lm-eval's `acc_bytes`; its `acc_norm` in ASCII."""
        return np.asarray((self.log_likelihoods / self.n_bytes).argmax(axis=1) == self.right)

    @cached_property
    def margins(self) -> Floats:
        """Log-likelihood of the right choice above that of the best wrong one, `[n_items]`."""
        others = self.log_likelihoods.copy()
        others[np.arange(self.n), self.right] = -np.inf
        return np.asarray(self._of_right - others.max(axis=1))

    @cached_property
    def losses(self) -> Floats:
        """-log of the right choice's share of the likelihood of all choices, `[n_items]`."""
        return np.asarray(logsumexp(self.log_likelihoods, axis=1) - self._of_right)

    @property
    def _of_right(self) -> Floats:
        return np.asarray(self.log_likelihoods[np.arange(self.n), self.right])

    @property
    def values(self) -> dict[str, float]:
        """Quantities of a trial, every one minimized."""
        errors = 1 - float(self.correct.mean()), 1 - float(self.correct_norm.mean())
        return dict(zip(ANSWERED, (*errors, float(self.losses.mean())), strict=True))


@dataclass(frozen=True)
class Paired:
    """Answers of one model held against another's to the same items.

    Args:
        n_lost: items that only the other one answers rightly.
        n_gained: items that only this one answers rightly.
        accuracy: mean difference in accuracy.
        accuracy_interval: of it, by bootstrap over items.
        accuracy_p: McNemar's exact test: with no difference, lost and gained are equally likely.
        margin: mean difference of the margins, in nats.
        margin_interval: of it, by bootstrap over items.
        margin_p: two-sided, by random signs of the differences.
    """

    n_lost: int
    n_gained: int
    accuracy: float
    accuracy_interval: Interval
    accuracy_p: float
    margin: float
    margin_interval: Interval
    margin_p: float

    @classmethod
    def of(cls, answers: Answers, other: Answers, seed: int = 0) -> Paired:
        """Compare two models' answers.

        Accuracy sees only items near the border between right and wrong, margins what every item
        lost: they tell smaller changes, unless some margins vary by far more than others.

        Args:
            answers: of the quantized model.
            other: of the unquantized one.
            seed: of the resampled items.

        Raises:
            MismatchedArtifact: they are of different items.
        """
        if not np.array_equal(answers.right, other.right):
            raise MismatchedArtifact("Answers to different items cannot be paired.")
        lost = int((other.correct & ~answers.correct).sum())
        gained = int((answers.correct & ~other.correct).sum())
        accuracies = answers.correct.astype(np.float64) - other.correct
        margins = answers.margins - other.margins
        return cls(
            lost,
            gained,
            float(accuracies.mean()),
            bootstrap(accuracies, seed),
            mcnemar(lost, gained),
            float(margins.mean()),
            bootstrap(margins, seed),
            sign_flips(margins, seed),
        )


def wilson(n_right: int, n: int) -> Interval:
    """Confidence interval of a share, Wilson's score: it holds near 0 and 1 and for small `n`.

    >>> interval = wilson(5, 10)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.2366, 0.7634)
    """
    from scipy.stats import binomtest  # half a second that few studies need

    interval = binomtest(n_right, n).proportion_ci(_CONFIDENCE, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def mcnemar(n_lost: int, n_gained: int) -> float:
    """Exact two-sided p-value that losing and gaining an item are equally likely.

    >>> round(mcnemar(8, 1), 4), mcnemar(0, 0)
    (0.0391, 1.0)
    """
    from scipy.stats import binomtest

    n = n_lost + n_gained
    return float(binomtest(n_lost, n).pvalue) if n else 1.0


def bootstrap(differences: Floats, seed: int = 0) -> Interval:
    """Confidence interval of the mean of `differences [n_items]`: percentiles over resampling."""
    rng = np.random.default_rng(seed)
    n = len(differences)
    means = np.concatenate(
        [differences[rng.integers(0, n, (rows, n))].mean(axis=1) for rows in _parts(n)]
    )
    tail = 50 * (1 - _CONFIDENCE)
    low, high = np.percentile(means, (tail, 100 - tail))
    return Interval(float(low), float(high))


def sign_flips(differences: Floats, seed: int = 0) -> float:
    """Two-sided p-value that the mean of `differences [n_items]` is zero: random signs.

    Were both models alike, each difference could as well have the other sign. Of `N` random draws
    the smallest p-value is 1 / (N + 1).
    """
    rng = np.random.default_rng(seed)
    measured = abs(differences.sum())
    n, as_far = len(differences), 0
    for rows in _parts(n):
        signs = rng.integers(0, 2, (rows, n), dtype=np.int8) * 2.0 - 1
        # Rounding must not tell the measured sum from the same one added up otherwise.
        as_far += int((np.abs(signs @ differences) >= measured * (1 - 1e-12)).sum())
    return float((as_far + 1) / (_N_RESAMPLES + 1))


def _parts(n: int) -> list[int]:
    """How many resamples of `n` items are drawn at a time."""
    rows = max(1, min(_N_RESAMPLES, 2**20 // n))
    whole, rest = divmod(_N_RESAMPLES, rows)
    return [rows] * whole + [rest] * (rest > 0)
