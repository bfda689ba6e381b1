"""Proposing: what a study measures next, and when it ends; told by its trials alone."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bitfront.allocation import Allocation
from bitfront.job import Job
from bitfront.pareto import LATENCY, hypervolume, objectives
from bitfront.problem import Problem
from bitfront.progress import counted
from bitfront.screening import Screener
from bitfront.search import SEARCHES
from bitfront.search.base import Search, share_of_limits
from bitfront.space import SearchSpace
from bitfront.table import LayerTable
from bitfront.trial import Trial, TrialState

_NEAR = 0.15
_GROWN = 1.001
_SPENT = ("seconds", "slope_seconds", "screen_seconds")
"""Values of a proposal that count as the time of a search."""


@dataclass(frozen=True)
class Proposal:
    """What to measure next.

    Args:
        allocation: what to measure, on the calibration text.
        origin: who proposed it: a search's name, or `"uniform"` for a baseline.
        target: budget and searches it was proposed for; empty for baselines.
        spent: values that the trial gets besides the measured ones: `slope_seconds` and
            `screen_seconds` where finding it took any.
    """

    allocation: Allocation
    origin: str
    target: str = ""
    spent: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Proposer:
    """Says what to measure after the baselines; it measures only slopes and screenings itself.

    All that it decides follows from the stored trials and from slopes in the folder, so one that
    was just opened on the same trials proposes the same. A proposal never knows the results of
    the last `n_parallel - 1` before it, even if they are there: asked when all others have ended,
    the proposals are the same on any number of workers.

    Args:
        job: the study; its `stored` trials may grow, or end, between proposals.
        searches: those of the study, which propose in turn.
        screener: measures what they ask to be screened.
        slopes: tables found so far, by allocation.
    """

    job: Job
    searches: tuple[Search, ...]
    screener: Screener
    slopes: dict[Allocation, LayerTable] = field(default_factory=dict)

    @classmethod
    def opened(cls, job: Job) -> Proposer:
        """With the searches of the study and what its folder knows."""
        choices = job.study.searches
        searches = tuple(SEARCHES.build(choice.name, choice.params) for choice in choices)
        return cls(job, searches, Screener.opened(job.measurement, job.results, job.progress))

    def next(self) -> Proposal | None:
        """The next proposal; `None` when the search has ended.

        It ends with the first of `n_trials`, `max_minutes` and `patience` of the study, or when no
        search has anything left to propose. Every baseline must be measured.
        """
        job, n_proposed = self.job, len(self.job.proposals)
        assert not missing_baselines(job), "baselines come first"
        known = _known(job)
        n_done = len(baselines(job.problem.space)) + n_proposed
        if n_done >= n_wanted(job) or _stopped(job, known):
            return None
        # One generator per step: the n-th proposal does not depend on where a run was cut.
        seed, number = (job.study.seed, n_done), job.next_number
        problem = replace(job.problem, slopes=self._known_slopes(known))
        slope_seconds = 0.0
        for turn in range(len(self.searches)):
            place = (n_proposed + turn) % len(self.searches)
            search = self.searches[place]
            problem, seconds = self._with_slope(search, problem, known)
            slope_seconds += seconds
            problem = self.screener.answered(search, problem, known, seed, number)
            asked = search.ask(problem, known, 1, np.random.default_rng(seed))
            if asked:
                spent = {
                    "slope_seconds": round(slope_seconds, 3),
                    "screen_seconds": round(self.screener.seconds(number), 3),
                }
                spent = {name: value for name, value in spent.items() if value}
                return Proposal(asked[0], job.study.searches[place].name, job.target, spent)
        return None

    def _known_slopes(self, known: Sequence[Trial]) -> dict[Allocation, LayerTable]:
        """Slopes at the known trials, whichever run or process measured them."""
        allocations = [t.allocation for t in known if t.state is not TrialState.RUNNING]
        found = {allocation: self._slope(allocation) for allocation in allocations}
        return {allocation: table for allocation, table in found.items() if table is not None}

    def _slope(self, allocation: Allocation) -> LayerTable | None:
        """That of the folder, read once; `None` where there is none."""
        if allocation not in self.slopes:
            job = self.job
            table = job.results.load_table(_slopes_name(allocation), job.problem.space)
            if table is None:
                return None
            self.slopes[allocation] = table
        return self.slopes[allocation]

    def _with_slope(
        self, search: Search, problem: Problem, known: Sequence[Trial]
    ) -> tuple[Problem, float]:
        """The problem with the slope that the search asks for, and the seconds that it took."""
        wanted, seconds = search.slope_at(problem, known), 0.0
        if wanted is None:
            return problem, seconds
        table = self._slope(wanted)
        if table is None:
            job, start = self.job, time.perf_counter()
            table = job.measurement.slopes(wanted, counted(job.progress, "slopes"))
            job.results.save_table(_slopes_name(wanted), table)
            self.slopes[wanted] = table
            seconds = time.perf_counter() - start
        return replace(problem, slopes={**problem.slopes, wanted: table}), seconds


def is_due(job: Job) -> bool:
    """Whether all but the last `n_parallel - 1` proposals have ended, so that one may follow."""
    waited_for = job.proposals[: _n_known(job)]
    return all(trial.state is not TrialState.RUNNING for trial in waited_for)


def baselines(space: SearchSpace) -> list[Allocation]:
    """The uniform allocations, which every study measures."""
    made = [space.decode(space.uniform(column)) for column in range(len(space.formats))]
    return list(dict.fromkeys(made))


def missing_baselines(job: Job) -> list[Allocation]:
    """Those not measured yet, running ones too; nothing is proposed before there are none."""
    trials = job.trials("calibration")
    seen = {t.allocation for t in trials if t.state is not TrialState.RUNNING}
    return [a for a in baselines(job.problem.space) if a not in seen]


def n_wanted(job: Job) -> int:
    """Most measurements on the calibration text: all baselines and at least one proposal."""
    return max(job.study.n_trials, len(baselines(job.problem.space)) + 1)


def _n_known(job: Job) -> int:
    return max(0, len(job.proposals) - (job.study.n_parallel - 1))


def _known(job: Job) -> list[Trial]:
    """What the next proposal may know: the last before it count as running, ended or not."""
    hidden = {trial.number for trial in job.proposals[_n_known(job) :]}
    running = TrialState.RUNNING
    return [
        replace(t, state=running, values={}, error=None) if t.number in hidden else t
        for t in job.trials("calibration")
    ]


def _stopped(job: Job, known: Sequence[Trial]) -> bool:
    """Whether the time is spent, or the last proposals did not let the front grow.

    Args:
        job: whose bounds hold.
        known: what the next proposal knows; running ones say nothing.
    """
    study, trials = job.study, [t for t in known if t.state is not TrialState.RUNNING]
    proposals = [t for t in trials if t.target == job.target]
    if not proposals:
        return False
    if study.max_minutes is not None:
        spent = sum(t.values.get(name, 0.0) for t in proposals for name in _SPENT)
        if spent >= 60 * study.max_minutes:
            return True
    if study.patience is None or len(proposals) <= study.patience:
        return False
    recent = {trial.number for trial in proposals[-study.patience :]}
    now = _volume(job.problem, trials, trials)
    before = _volume(job.problem, [t for t in trials if t.number not in recent], trials)
    return now <= _GROWN * before


def _volume(problem: Problem, trials: Sequence[Trial], known: Sequence[Trial]) -> float:
    """Hypervolume of `trials` over (log loss, share of the limit) up to the worst of those `known`.

    Only trials within 15 % of a limit count; their share is that of the tightest limit. Where every
    trial has a latency, that is the third objective.
    """
    timed = LATENCY in objectives(known)

    def points(some: Sequence[Trial]) -> np.ndarray:
        rows = [
            (
                math.log(max(t.goal, 1e-12)),
                share_of_limits(problem, t),
                *([t.values[LATENCY]] if timed else []),
            )
            for t in some
            if t.state is TrialState.COMPLETE
        ]
        near = [row for row in rows if abs(row[1] - 1) <= _NEAR]
        return np.array(near).reshape(-1, 2 + timed)

    everything = points(known)
    if not len(everything):
        return 0.0
    corner = everything.max(axis=0)
    corner[0] += 1e-9
    corner[1] = 1 + _NEAR
    corner[2:] *= 1 + 1e-9
    return hypervolume(points(trials), corner)


def _slopes_name(allocation: Allocation) -> str:
    return f"slopes-{allocation.digest[:16]}"
