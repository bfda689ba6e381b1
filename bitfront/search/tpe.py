"""Tree-structured Parzen estimator over corrections of the loss table, by Optuna."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import optuna

from bitfront.search._optuna import VectorStudy, quiet, seed_of
from bitfront.search._vectors import Floats, Sampler, VectorSearch


@dataclass(frozen=True)
class Tpe(VectorSearch):
    """Corrections sampled where good measurements are denser than bad ones, solved exactly.

    The best tenth of the measured vectors (at most 25) gets one density, the others another; of 24
    samples of the first, the one with the largest ratio of the two is solved. Vectors hold 20 to 40
    corrections shared by layers of a kind, a depth, a format; measured allocations of any origin
    get theirs in closed form, so the study is rebuilt from the history on every proposal. One
    categorical per layer, the usual encoding, takes 15 CPU seconds a proposal at 200 layers and
    3,000 trials, and most of its samples are over the budget.

    `posterior_ilp` learns from the value of every measurement, this only from their order.

    Needs: a loss table to shift, and measurements.

    Cost: a quarter of a second after 1,000 trials and one solve.

    Prefer it only to compare with: after 64 measurements it had 0.967 of `sweep`'s KL on
    SmolLM2-135M and 0.956 on stories15M, `posterior_ilp` 0.819 and 0.909 (docs/measurements.md).

    Source: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011; multivariate as in
    Falkner et al., "BOHB", 2018.

    Args:
        solver: name of the solver that decodes a vector.
        prior_sd: standard deviation of a correction, in log units; vectors go to three times that.
        spread: how far every second proposal goes below the budget, as a fraction of it.
        n_warm_start: with how many points of the solver's front the search begins.
    """

    def sampler(
        self, vectors: Floats, scores: Floats, n_proposed: int, rng: np.random.Generator
    ) -> Sampler:
        """Optuna's `TPESampler`, told the whole past."""
        with quiet():
            sampler = optuna.samplers.TPESampler(seed=seed_of(rng))
        return VectorStudy(sampler, vectors, scores)
