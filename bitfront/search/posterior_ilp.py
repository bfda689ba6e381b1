"""A Bayesian correction of the loss table, learned from measurements, solved exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from bitfront.allocation import Allocation
from bitfront.errors import InvalidArgument
from bitfront.problem import Problem
from bitfront.search._corrections import Floats
from bitfront.search._levels import Levels
from bitfront.search._posterior import Choices, Posterior, Prior, Scales
from bitfront.search._proposals import NEAR
from bitfront.search._record import Record, every_choice
from bitfront.search._warm_start import warm_start
from bitfront.search.base import Search, learned_kl, share_of_limits
from bitfront.search.sweep import Sweep
from bitfront.solvers import SOLVERS, Solver
from bitfront.space import SearchSpace
from bitfront.trial import Trial

_ASIDE = 4
"""One proposal in so many looks at a smaller limit."""

_SWITCHES = 32
"""Switches around the best choice tried for one proposal, once all else was measured."""

_POSITIVE = ("prior_sd", "residual_sd", "entry_sd", "pair_sd", "noise_sd", "temperature")


@dataclass(frozen=True)
class PosteriorIlp(Search):
    """Learned corrections of the loss table with pair terms; each proposal solves a posterior draw.

        log kl(a) = c + p log( sum_g t[g, a_g] ) + sum_g w_g e[g, a_g]
                    + sum_{g < h} sqrt(w_g w_h) r[g, a_g; h, a_h] + noise
        t[g, f]   = T[g, f] exp(phi[g, f] . theta + residual_g),    w_g = t[g, a_g] / sum of t

    T is the estimator's table. The features phi are few (layer kind, format, depth, their slopes
    with width), so one measurement says something about every layer; one residual per group and
    one entry e per (group, format), with narrow priors, say where a layer departs from its like,
    and r says how two layers' errors add to or cancel each other: the square root of the weights is
    the size that a product of two errors has. All are Gaussian, so n measurements cost an n x n
    matrix however many pairs there are. How large entries and pairs are is read off the
    measurements themselves (largest evidence).

    A proposal minimizes the posterior mean, or, when that was measured, a draw (Thompson
    sampling): the knapsack is solved exactly without pairs, then followed along the pair terms,
    linear around each solution, with an exact solve a step. Before the draws, pair terms of the
    mean are followed from the incumbent too. Draws differ from it in many layers at once, which is
    the design that the regression needs; with `switch_every` some proposals switch layers at
    random, whatever is believed of them. When all draws solve to what was measured, the front of
    the table follows, then the mean solved with one or more layers kept from their best format, as
    Lawler (1972) finds next best solutions; of small spaces, all the rest.

    Wide independent corrections per (layer, format) do not work: measured, their draws are
    dominated by whatever they under-rate, and no proposal beats the start. Narrow ones do, once the
    shared corrections carry the rest.

    Needs: a loss table in nats, and measurements to fit.

    Cost: one fit of (number of trials)^2 x groups and a few solves a proposal.

    Prefer it whenever a measurement costs seconds; `sweep` is as good when only a handful of
    measurements can be paid.

    Source: linear bandits with an exact oracle (Thompson sampling for combinatorial bandits);
    Gaussian processes with a polynomial kernel (Rasmussen and Williams 2006, sections 4.2 and 5.4).

    Args:
        solver: name of the solver of the drawn problem.
        prior_sd: prior standard deviation of the shared corrections, in log units.
        residual_sd: prior standard deviation of each group's own correction.
        entry_sd: that of each entry's own correction, for the first few measurements.
        pair_sd: that of all pair terms together, for the first few measurements.
        noise_sd: what the model cannot explain of a measured log kl, for the first few.
        temperature: width of the draws around the mean, 1 for the posterior itself.
        spread: how far every fourth proposal goes below the budget, as a fraction of it.
        switch_every: one proposal of a study in so many, counting those of other searches, switches
            random groups of the incumbent if it falls to this search; 0 for none.
        n_switches: groups that such a proposal takes up; others go down until the limits hold.
        n_warm_start: points of the solver's front measured first.
        max_history: most measurements that are learned from, those of smallest kl near the budget.
    """

    solver: str = "lagrangian"
    prior_sd: float = 0.35
    residual_sd: float = 0.15
    entry_sd: float = 0.15
    pair_sd: float = 0.2
    noise_sd: float = 0.01
    temperature: float = 0.5
    spread: float = 0.15
    switch_every: int = 0
    n_switches: int = 8
    n_warm_start: int = 1
    max_history: int = 400

    def __post_init__(self) -> None:
        SOLVERS.load(self.solver)
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise InvalidArgument(f"{name} is {getattr(self, name)}: give a positive number.")
        if not 0 <= self.spread < 1:
            raise InvalidArgument(f"spread is {self.spread}: give 0 <= spread < 1.")
        if (
            min(self.n_warm_start, self.switch_every) < 0
            or min(self.n_switches, self.max_history) < 1
        ):
            raise InvalidArgument(
                f"n_warm_start is {self.n_warm_start}, switch_every {self.switch_every}, "
                f"n_switches {self.n_switches}, max_history {self.max_history}: give "
                "n_warm_start >= 0, switch_every >= 0, n_switches >= 1, max_history >= 1."
            )

    def ask(
        self, problem: Problem, history: Sequence[Trial], n: int, rng: np.random.Generator
    ) -> list[Allocation]:
        """The solved mean, then solved draws; every fourth one at a smaller limit."""
        asked = warm_start(problem, history, n, rng, self.n_warm_start, self.spread or 0.01)
        if len(asked) == n:
            return asked
        record = Record(problem, history, asked)
        solver = SOLVERS.build(self.solver)
        scales = Scales(self.prior_sd, self.residual_sd, self.entry_sd, self.pair_sd, self.noise_sd)
        most = _affordable(problem.space, self.max_history)
        posterior = Posterior.given(Prior.of(problem, scales), *_measured(problem, history, most))
        while len(asked) < n:
            sought = record.targets(self.spread, _ASIDE)
            tried = [self._solved(posterior, target, solver, rng) for target in sought]
            if self.switch_every and (record.n_proposed - 1) % self.switch_every == 0:
                tried.insert(0, self._switched(posterior, problem, rng))
            found = next(filter(record.is_new, chain.from_iterable(tried)), None)
            if found is None:
                break
            record.add(found)
            asked.append(problem.space.decode(found))
        if len(asked) < n:
            asked += record.taken(self._others(posterior, problem, solver, rng), n - len(asked))
        return asked

    def _solved(
        self, posterior: Posterior, problem: Problem, solver: Solver, rng: np.random.Generator
    ) -> Iterator[Choices]:
        """The least of each belief within the limits of a problem.

        That of the mean before all, then what the mean has least of near the best measured.
        """
        beliefs, best = posterior.beliefs(self.temperature, rng), posterior.best(problem)
        mean = next(beliefs)
        yield mean.minimum(problem, solver)
        if best is not None:
            yield mean.minimum(problem, solver, best)
        for draw in beliefs:
            yield draw.minimum(problem, solver)

    def _switched(
        self, posterior: Posterior, problem: Problem, rng: np.random.Generator
    ) -> Iterator[Choices]:
        """The best that was learned from within the budget, if any, with random switches."""
        best = posterior.best(problem)
        if best is not None:
            levels = Levels.of(problem)
            yield levels.choice(levels.switched(levels.of_choice(best), self.n_switches, rng))

    def _others(
        self, posterior: Posterior, problem: Problem, solver: Solver, rng: np.random.Generator
    ) -> Iterator[Choices]:
        """The table's front, the mean solved without some best formats, then all that is left."""
        yield from Sweep(self.solver, self.spread or 0.01).choices(problem)
        mean = next(posterior.beliefs(self.temperature, rng))
        best = mean.minimum(problem, solver)
        for step in range(_SWITCHES):
            n_barred = min(1 + step // 4, len(best))
            belief = mean.without(rng.choice(len(best), n_barred, replace=False), best)
            yield belief.minimum(problem, solver)
        yield from every_choice(problem)


def _affordable(space: SearchSpace, max_history: int) -> int:
    """How many measurements are learned from: the fit is quadratic in them, linear in groups."""
    return max(32, min(max_history, int((5e8 / len(space.groups)) ** 0.5)))


def _measured(problem: Problem, history: Sequence[Trial], most: int) -> tuple[Choices, Floats]:
    """Choices `[n, n_groups]` and log kl `[n]` of the usable trials, at most the best `most`.

    Those far from the budget come last, or a folder that was searched at a larger one would leave
    no room for those of this one. Baselines are few, and as near as any.

    Every trial is measured on the same tokens, so the standard error that they share ranks nothing.
    """
    usable = sorted((t for t in history if learned_kl(t) > 0), key=learned_kl)
    if len(usable) > most:
        kept = sorted(usable, key=lambda t: not _is_near(problem, t))[:most]  # keeps their order
        usable = sorted(kept, key=learned_kl)
    space = problem.space
    choices = np.array([space.encode(t.allocation) for t in usable], dtype=np.int64)
    kl = np.array([learned_kl(t) for t in usable])
    return choices.reshape(len(usable), len(space.groups)), np.log(kl)


def _is_near(problem: Problem, trial: Trial) -> bool:
    return trial.origin == "uniform" or 1 / NEAR < share_of_limits(problem, trial) < NEAR
