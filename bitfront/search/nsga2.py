"""Genetic search for the front of loss and the limited costs, by Optuna's NSGA-II."""

from __future__ import annotations

from dataclasses import dataclass

import optuna

from bitfront.problem import Problem
from bitfront.search._genes import GeneticSampler, GeneticSearch


@dataclass(frozen=True)
class Nsga2(GeneticSearch):
    """Children of the best measured allocations: formats from either parent, a few drawn anew.

    A gene is the format of a group. Parents are what NSGA-II keeps of the whole history near the
    budget, by rank of domination, then by distance to neighbours, in the log of the loss and every
    limited cost. A child is made to fit the limits by the estimator's table with noise, so that
    children differ; it is measured, and may become a parent. Optuna selects the parents; genes are
    crossed and mutated by its defaults, but on arrays, because its time grows with the square of
    the parameters (45,000 at once took over nine minutes).

    It models nothing, so nothing but the table guides the formats of a child.

    Needs: a loss table to start from, and measurements.

    Cost: milliseconds to a second or two a proposal.

    Prefer it only to compare with: after 64 measurements it had 0.923 of `sweep`'s KL on
    SmolLM2-135M and 0.960 on stories15M, `posterior_ilp` 0.819 and 0.909 (docs/measurements.md).

    Source: Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002.

    Args:
        population_size: how many of the measured allocations may be parents.
        n_mutations: genes of a child that are drawn anew, on average.
        repair_sd: noise of the loss table by which children are repaired, in log units.
        spread: how far every second proposal goes below the budget, as a fraction of it.
        n_warm_start: with how many points of the solver's front the search begins.
    """

    def selector(self, seed: int) -> GeneticSampler:
        """NSGA-II."""
        return optuna.samplers.NSGAIISampler(population_size=self.population_size, seed=seed)

    def quantities(self, problem: Problem) -> tuple[str, ...]:
        """The limited costs."""
        return tuple(problem.limits)
