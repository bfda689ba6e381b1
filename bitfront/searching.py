"""The search itself, one measurement at a time: baselines, then proposals, until a stop."""

from __future__ import annotations

from bitfront.job import Job, measured
from bitfront.progress import Event
from bitfront.proposing import Proposal, Proposer, baselines, missing_baselines, n_wanted


def search_trials(job: Job) -> None:
    """Measure the uniform baselines, then what the searches propose in turn.

    It ends as `Proposer.next` says.
    """
    proposer = Proposer.opened(job)
    for allocation in missing_baselines(job):
        _measure(job, Proposal(allocation, "uniform"))
    while (proposal := proposer.next()) is not None:
        _measure(job, proposal)


def _measure(job: Job, proposal: Proposal) -> None:
    n_baselines = len(baselines(job.problem.space)) - len(missing_baselines(job))
    n_done, total = n_baselines + len(job.proposals), n_wanted(job)
    job.progress(Event("search", n_done, total))
    origin, target, spent = proposal.origin, proposal.target, proposal.spent
    trial = measured(job, proposal.allocation, "calibration", origin, target, spent)
    job.progress(Event("search", n_done + 1, total, trial))
