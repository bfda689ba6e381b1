"""Predictors of the measured loss of an allocation, learned from trials."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold

from bitfront.errors import InvalidArgument
from bitfront.plugins import nearest_name
from bitfront.problem import Problem
from bitfront.search._corrections import floored_table

Floats = NDArray[np.float64]
Choices = NDArray[np.integer[Any]]
_logger = logging.getLogger(__name__)

_MOST_CELLS = 1200
"""Features of single formats of single groups; more are pooled by kind and depth."""
_MOST_LOOKUPS = 8_000_000
"""Groups times trials that a fit looks at."""
_FEWEST = 6
"""Trials below which nothing is learned: the table alone predicts."""


@dataclass(frozen=True, eq=False)
class Features:
    """What a choice looks like to a predictor.

    The base is the log of the table's sum. The features are shares of that sum: of each format of
    each group (or of layers of one kind and depth, where there are too many groups), and pooled
    over formats, kinds and depths. A wrong entry of the table moves log kl by its log error times
    its share, so one prior fits all of them.

    Args:
        table: floored above zero, flat, `[n_groups * n_formats]`.
        cells: feature of each entry of the table, same shape.
        pools: `[n_cells, n_pooled]`, which cells each pooled feature adds up.
        starts: index of the first format of each group, `[n_groups]`.
    """

    table: Floats
    cells: Choices
    pools: Floats
    starts: Choices

    @classmethod
    def of(cls, problem: Problem) -> Features:
        """Features of the choices of a problem."""
        table = floored_table(problem)
        n_groups, n_formats = table.shape
        kind, depth = _places(problem)
        format = np.broadcast_to(np.arange(n_formats), table.shape)
        if table.size <= _MOST_CELLS:
            place = np.arange(n_groups)
        else:
            n_bins = max(_MOST_CELLS // (n_formats * (kind.max() + 1)), 1)
            place = kind * n_bins + np.minimum((depth * n_bins).astype(np.int64), n_bins - 1)
        keys = np.stack([place[:, None] * n_formats + format, format], axis=-1).reshape(-1, 2)
        _, first, cells = np.unique(keys[:, 0], return_index=True, return_inverse=True)
        group, column = first // n_formats, first % n_formats
        eighth = np.minimum((depth * 8).astype(np.int64), 7)
        pooled = [column, *(at[group] * n_formats + column for at in (kind, eighth))]
        pools = np.hstack([np.equal.outer(key, np.unique(key)) for key in pooled])
        starts = np.arange(n_groups) * n_formats
        return cls(table.ravel(), cells.ravel(), pools.astype(np.float64), starts)

    def describe(self, choices: Choices) -> tuple[Floats, Floats]:
        """Base `[n]` and features `[n, n_features]` of choices `[n, n_groups]`."""
        flat = choices + self.starts
        terms = self.table[flat]
        total = terms.sum(axis=1)
        n, n_cells = len(choices), len(self.pools)
        at = self.cells[flat] + n_cells * np.arange(n)[:, None]
        shares = (terms / total[:, None]).ravel()
        cells = np.bincount(at.ravel(), shares, minlength=n * n_cells).reshape(n, n_cells)
        base = np.log(total)
        return base, np.hstack([base[:, None], cells @ self.pools, cells])


def _places(problem: Problem) -> tuple[Choices, Floats]:
    """Kind of each group as a small number, and its depth from 0 to 1."""
    first = [problem.space.layers[group[0]] for group in problem.space.groups]
    _, kind = np.unique([layer.kind for layer in first], return_inverse=True)
    block = np.array([layer.block for layer in first], dtype=np.float64)
    return kind % 64, np.maximum(block, 0.0) / max(block.max(), 1.0)


def _ridge(_seed: int) -> Any:
    return RidgeCV(alphas=np.logspace(-5, 1, 13))


class _AdditiveProcess:
    """Gaussian process whose kernel adds up over features, plus one that sees them together.

    Of a grid of amplitudes and noises the likeliest is kept: dearer optimizers find nothing better
    that lasts until the next trial.
    """

    def fit(self, described: Floats, values: Floats) -> _AdditiveProcess:
        fits = [
            GaussianProcessRegressor(
                ConstantKernel(each) * DotProduct(0.1)
                + ConstantKernel(jointly) * RBF(0.3)
                + WhiteKernel(noise),
                optimizer=None,
            ).fit(described, values)
            for each, jointly, noise in product((0.03, 0.3), (0.003, 0.03), (1e-4, 1e-3, 1e-2))
        ]
        self.likeliest = max(fits, key=lambda fit: fit.log_marginal_likelihood_value_)
        return self

    def predict(self, described: Floats) -> Floats:
        return np.asarray(self.likeliest.predict(described), dtype=np.float64)


def _gaussian_process(_seed: int) -> Any:
    return _AdditiveProcess()


def _gradient_boosting(seed: int) -> Any:
    return GradientBoostingRegressor(
        n_estimators=100, max_depth=3, subsample=0.7, max_features="sqrt", random_state=seed
    )


def _rbf(_seed: int) -> Any:
    return KernelRidge(alpha=0.01, kernel="rbf", gamma=2.0)


@dataclass(frozen=True)
class _Kind:
    """How a predictor is built, and the most trials that it can learn from within a moment."""

    build: Callable[[int], Any]
    most_trials: int


PREDICTORS: Mapping[str, _Kind] = {
    "gaussian_process": _Kind(_gaussian_process, 128),
    "gradient_boosting": _Kind(_gradient_boosting, 512),
    "rbf": _Kind(_rbf, 512),
    "ridge": _Kind(_ridge, 512),
}


def check_predictor(name: str) -> None:
    """Refuse a name that no predictor has.

    Raises:
        InvalidArgument: names those there are.
    """
    if name not in PREDICTORS:
        raise InvalidArgument(
            f"Unknown predictor {name!r}.{nearest_name(name, tuple(PREDICTORS))} "
            f"Available: {', '.join(PREDICTORS)}."
        )


@dataclass(frozen=True, eq=False)
class _Regression:
    """A regression around the mean of what it learned from.

    Args:
        centre: mean of the features, `[n_features]`.
        offset: mean of the values.
        model: the fitted regression of what is left; `None` where there was too little to learn.
    """

    centre: Floats
    offset: float
    model: Any

    @classmethod
    def fitted(cls, model: Any, described: Floats, values: Floats) -> _Regression:
        if len(values) < _FEWEST:
            return cls(
                np.zeros(described.shape[1]), float(np.sum(values) / max(len(values), 1)), None
            )
        centre, offset = described.mean(axis=0), float(values.mean())
        return cls(centre, offset, model.fit(described - centre, values - offset))

    def predict(self, described: Floats) -> Floats:
        if self.model is None:
            return np.full(len(described), self.offset)
        return np.asarray(self.model.predict(described - self.centre)) + self.offset


@dataclass(frozen=True, eq=False)
class Predictor:
    """Log kl of choices: the table's, corrected by what a regression learned of the difference.

        log kl(a) = log( sum_g T[g, a_g] ) + regression(features(a))

    With few trials that is the table, whose order is right from the start.

    Args:
        features: how choices are described.
        regression: what is added to the table's log.
    """

    features: Features
    regression: _Regression

    @classmethod
    def fitted(
        cls,
        name: str,
        problem: Problem,
        choices: Choices,
        log_kl: Floats,
        rng: np.random.Generator,
    ) -> Predictor:
        """The predictor `name` after it saw measured choices; logs how well it ranks others.

        Args:
            name: a key of `PREDICTORS`.
            problem: holds the table.
            choices: `[n, n_groups]`, oldest first.
            log_kl: measured, `[n]`.
            rng: the only source of randomness.
        """
        kind, seed = PREDICTORS[name], int(rng.integers(2**31))
        most = min(kind.most_trials, max(_MOST_LOOKUPS // max(choices.shape[1], 1), 64))
        kept = bounded(len(choices), most)
        features = Features.of(problem)
        base, described = features.describe(choices[kept])
        left = log_kl[kept] - base
        # the folds cost more than the fit: they are paid for only where somebody reads of them
        if len(kept) >= 2 * _FEWEST and _logger.isEnabledFor(logging.INFO):
            tau = cross_validated_tau(partial(kind.build, seed), described, left, base, seed)
            _logger.info("%s: Kendall's tau %.3f on unseen trials of %d", name, tau, len(kept))
        return cls(features, _Regression.fitted(kind.build(seed), described, left))

    def predict(self, choices: Choices) -> Floats:
        """Log kl of choices `[n, n_groups]`."""
        base, described = self.features.describe(choices)
        return base + self.regression.predict(described)


def cross_validated_tau(
    build: Callable[[], Any], described: Floats, left: Floats, base: Floats, seed: int
) -> float:
    """Kendall's tau between measured and predicted, each predicted without its own fold of three.

    The mean over the folds, because the fits of two folds do not share a scale.
    """
    found = []
    for train, test in KFold(3, shuffle=True, random_state=seed).split(described):
        fold = _Regression.fitted(build(), described[train], left[train])
        predicted = base[test] + fold.predict(described[test])
        found.append(kendalltau(predicted, base[test] + left[test]).statistic)
    return float(np.mean(found))


def bounded(n: int, most: int) -> NDArray[np.int64]:
    """At most `most` of `n` trials: the latest half, and an even choice of the earlier ones."""
    if n <= most:
        return np.arange(n)
    latest = np.arange(n - most // 2, n)
    earlier = np.linspace(0, n - len(latest) - 1, most - len(latest)).astype(np.int64)
    return np.concatenate([earlier, latest])
