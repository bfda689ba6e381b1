"""The search itself: baselines, then what one or several searches propose, until a stop."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch

from bitfront.allocation import Allocation
from bitfront.measurement import Measurement
from bitfront.pareto import LATENCY, hypervolume, objectives
from bitfront.problem import Problem
from bitfront.progress import Event, Progress, counted
from bitfront.results import Results
from bitfront.screening import Screener
from bitfront.search import SEARCHES
from bitfront.search.base import Search, share_of_limits
from bitfront.study import Study
from bitfront.table import LayerTable
from bitfront.trial import Trial, TrialState

_NEAR = 0.15
_GROWN = 1.001


@dataclass(frozen=True, eq=False)
class Job:
    """A study ready to measure.

    Args:
        study: what was asked.
        results: its folder, held by this process.
        problem: loss table of the estimator, costs and limits.
        measurement: the model with its quantized weights and references.
        tokens: blocks by text, `"estimation"`, `"calibration"` and `"evaluation"`, int64
            `[n_sequences, sequence_length]`.
        stored: every trial of the folder, oldest first; `measured` adds to it.
        progress: where steps are reported.
    """

    study: Study
    results: Results
    problem: Problem
    measurement: Measurement
    tokens: Mapping[str, torch.Tensor]
    stored: list[Trial]
    progress: Progress

    def trials(self, text: str) -> list[Trial]:
        """Finished trials on a text, oldest first."""
        return [trial for trial in self.stored if trial.text == text]


def search_trials(job: Job) -> None:
    """Measure the uniform baselines, then what the searches propose in turn, one at a time.

    It ends with the first of `n_trials`, `max_minutes` and `patience` of the study, or when no
    search has anything left to propose.
    """
    study, problem = job.study, replace(job.problem, slopes=_stored_slopes(job))
    searches = [SEARCHES.build(choice.name, choice.params) for choice in study.searches]
    screener = Screener.opened(job.measurement, job.results, job.progress)
    history, baselines = job.trials("calibration"), _uniform(problem)
    seen = {trial.allocation for trial in history}
    total = max(study.n_trials, len(baselines) + 1)
    n_proposed = len(_proposals(job))
    n_done = sum(a in seen for a in baselines) + n_proposed
    for allocation in [a for a in baselines if a not in seen]:
        _step(job, allocation, "uniform", "", n_done, total)
        n_done += 1
    while n_done < total and not _stopped(job, screener):
        history = job.trials("calibration")
        # One generator per step: the n-th proposal does not depend on where a run was cut.
        seed = (study.seed, n_done)
        for turn in range(len(searches)):
            place = (n_proposed + turn) % len(searches)
            search = searches[place]
            problem, slope_seconds = _with_slopes(search, problem, history, job)
            problem = screener.answered(search, problem, history, seed, _next_number(job))
            asked = search.ask(problem, history, 1, np.random.default_rng(seed))
            if asked:
                origin = study.searches[place].name
                spent = {"slope_seconds": slope_seconds} if slope_seconds else {}
                _step(job, asked[0], origin, _target(study), n_done, total, spent)
                n_done, n_proposed = n_done + 1, n_proposed + 1
                break
        else:
            break


def _target(study: Study) -> str:
    """What proposals are made for; a trial says it, so that a continued search knows its own."""
    return f"{study.budget} {','.join(map(str, study.searches))}"


def _proposals(job: Job) -> list[Trial]:
    """What was proposed for this budget and these searches, oldest first."""
    return [t for t in job.trials("calibration") if t.target == _target(job.study)]


def _stopped(job: Job, screener: Screener) -> bool:
    """Whether the time is spent, or the last proposals did not let the front grow."""
    study, proposals = job.study, _proposals(job)
    if not proposals:
        return False
    if study.max_minutes is not None:
        numbers = {trial.number for trial in proposals}
        names = ("seconds", "slope_seconds")
        spent = sum(trial.values.get(name, 0.0) for trial in proposals for name in names)
        spent += sum(x.seconds for x in screener.known.values() if x.number in numbers)
        if spent >= 60 * study.max_minutes:
            return True
    if study.patience is None or len(proposals) <= study.patience:
        return False
    recent = {trial.number for trial in proposals[-study.patience :]}
    trials = job.trials("calibration")
    now = _volume(job.problem, trials, trials)
    before = _volume(job.problem, [t for t in trials if t.number not in recent], trials)
    return now <= _GROWN * before


def _volume(problem: Problem, trials: Sequence[Trial], known: Sequence[Trial]) -> float:
    """Hypervolume of `trials` over (log kl, share of the limit) up to the worst of those `known`.

    Only trials within 15 % of a limit count; their share is that of the tightest limit. Where every
    trial has a latency, that is the third objective.
    """
    timed = LATENCY in objectives(known)

    def points(some: Sequence[Trial]) -> np.ndarray:
        rows = [
            (
                math.log(max(t.values["kl"], 1e-12)),
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


def _step(
    job: Job,
    allocation: Allocation,
    origin: str,
    target: str,
    n_done: int,
    total: int,
    spent: Mapping[str, float] = MappingProxyType({}),
) -> None:
    job.progress(Event("search", n_done, total))
    trial = measured(job, allocation, "calibration", origin, target, spent)
    job.progress(Event("search", n_done + 1, total, trial))


def _with_slopes(
    search: Search, problem: Problem, history: Sequence[Trial], job: Job
) -> tuple[Problem, float]:
    """The problem with the slope that the search asks for, and the seconds that it took."""
    wanted = search.slope_at(problem, history)
    if wanted is None:
        return problem, 0.0
    start = time.perf_counter()
    table = job.measurement.slopes(wanted, counted(job.progress, "slopes"))
    job.results.save_table(_slopes_name(wanted), table)
    slopes = {**problem.slopes, wanted: table}
    return replace(problem, slopes=slopes), round(time.perf_counter() - start, 3)


def _stored_slopes(job: Job) -> dict[Allocation, LayerTable]:
    """Slopes that earlier runs measured: a continued search must know what it knew."""
    measured = [trial.allocation for trial in job.trials("calibration")]
    tables = {a: job.results.load_table(_slopes_name(a), job.problem.space) for a in measured}
    return {allocation: table for allocation, table in tables.items() if table is not None}


def _slopes_name(allocation: Allocation) -> str:
    return f"slopes-{allocation.digest[:16]}"


def _uniform(problem: Problem) -> list[Allocation]:
    space = problem.space
    made = [space.decode(space.uniform(column)) for column in range(len(space.formats))]
    return list(dict.fromkeys(made))


def measured(
    job: Job,
    allocation: Allocation,
    text: str,
    origin: str,
    target: str = "",
    spent: Mapping[str, float] = MappingProxyType({}),
) -> Trial:
    """Measure an allocation and store the trial, with what was spent to find it."""
    trial = job.measurement.trial(_next_number(job), allocation, text, origin, target)
    trial = replace(trial, values={**trial.values, **spent})
    job.results.append(trial)
    job.stored.append(trial)
    return trial


def _next_number(job: Job) -> int:
    # Not their count: a line may have been removed.
    return 1 + max((trial.number for trial in job.stored), default=-1)
