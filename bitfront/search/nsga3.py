"""Genetic search for the front of loss and all costs, by Optuna's NSGA-III."""

from __future__ import annotations

from dataclasses import dataclass

import optuna

from bitfront.problem import Problem
from bitfront.search._genes import GeneticSampler, GeneticSearch


@dataclass(frozen=True)
class Nsga3(GeneticSearch):
    """Children of the measured allocations that spread best over loss, bytes and every other cost.

    As `nsga2`, but over all cost tables of the problem, limited or not, and parents are kept by
    their distance to directions that are laid evenly over the objectives: with three objectives
    and more, neighbours in the crowd say little.

    Needs: as `nsga2`.

    Cost: as `nsga2`.

    Prefer it only to compare with: after 128 measurements of stories15M its volume over loss, bytes
    and an unlimited latency was 1.0 % above that of `sweep`, as that of `nsga2`, which does not
    look at the latency; the default's was 3.2 % above (docs/measurements.md).

    Source: Deb and Jain, "An Evolutionary Many-Objective Optimization Algorithm Using
    Reference-Point-Based Nondominated Sorting Approach", 2014.

    Args:
        population_size: how many of the measured allocations may be parents.
        n_mutations: genes of a child that are drawn anew, on average.
        repair_sd: noise of the loss table by which children are repaired, in log units.
        spread: how far every second proposal goes below the budget, as a fraction of it.
        n_warm_start: with how many points of the solver's front the search begins.
    """

    def selector(self, seed: int) -> GeneticSampler:
        """NSGA-III."""
        return optuna.samplers.NSGAIIISampler(population_size=self.population_size, seed=seed)

    def quantities(self, problem: Problem) -> tuple[str, ...]:
        """All cost tables, the limited ones first."""
        others = (t.quantity for t in problem.costs if t.quantity not in problem.limits)
        return (*problem.limits, *others)
