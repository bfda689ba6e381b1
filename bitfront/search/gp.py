"""Gaussian process over corrections of the loss table, by Optuna."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import optuna

from bitfront.errors import InvalidArgument
from bitfront.search._corrections import BOUND
from bitfront.search._optuna import VectorStudy, quiet, seed_of
from bitfront.search._vectors import Floats, Sampler, VectorSearch, kept


@dataclass(frozen=True)
class Gp(VectorSearch):
    """Corrections of largest expected improvement under a Gaussian process, solved exactly.

    The process (Matern 5/2, one length scale per correction, fitted by marginal likelihood)
    predicts the score of a vector; log expected improvement is climbed from ten starts. Its fit
    grows with the cube of the trials, so it sees only the best and the latest of them.

    Samples keep near the table: with the whole prior in reach, improvement is expected at its far
    corners, and 50 of them brought nothing.

    Needs: a loss table to shift, and measurements.

    Cost: half a second a proposal, and PyTorch is loaded (two seconds).

    Prefer it only to compare with: after 64 measurements it had 0.982 of `sweep`'s KL on
    SmolLM2-135M and 0.969 on stories15M, `posterior_ilp` 0.819 and 0.909 (docs/measurements.md).

    Source: Ament et al., "Unexpected Improvements to Expected Improvement for Bayesian
    Optimization", 2023; Optuna's `GPSampler`.

    Args:
        solver: name of the solver that decodes a vector.
        prior_sd: standard deviation of a correction, in log units; vectors go to three times that.
        spread: how far every second proposal goes below the budget, as a fraction of it.
        n_warm_start: with how many points of the solver's front the search begins.
        max_trials: how many of the past trials the process is fitted to.
        reach: how far samples go, in prior standard deviations.
    """

    max_trials: int = 128
    reach: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_trials < 2 or not 0 < self.reach <= BOUND:
            raise InvalidArgument(
                f"max_trials is {self.max_trials}, reach {self.reach}: give max_trials >= 2, "
                f"0 < reach <= {BOUND}."
            )

    def sampler(
        self, vectors: Floats, scores: Floats, n_proposed: int, rng: np.random.Generator
    ) -> Sampler:
        """Optuna's `GPSampler`, told the best and the latest of the past."""
        which = kept(scores, self.max_trials)
        with quiet():
            sampler = optuna.samplers.GPSampler(seed=seed_of(rng), warn_independent_sampling=False)
        return VectorStudy(sampler, vectors[which], scores[which], self.reach)
