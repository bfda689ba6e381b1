"""Job: a study that is loaded, quantized and estimated, and what was measured of it so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from bitfront.allocation import Allocation
from bitfront.measurement import Measurement
from bitfront.problem import Problem
from bitfront.progress import Progress
from bitfront.results import Results
from bitfront.study import Study
from bitfront.trial import PREDICTED, Trial


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
        stored: every trial of the folder, and those that are running; `measured` adds to it.
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
        """Trials on a text by number, whenever they ended."""
        return sorted((t for t in self.stored if t.text == text), key=lambda t: t.number)

    @property
    def target(self) -> str:
        """What proposals are made for; trials say it, so that a continued search knows its own."""
        target = f"{self.study.budget} {','.join(map(str, self.study.searches))}"
        # By another table the same milliseconds are another limit.
        priced = [t for t in self.problem.costs if t.quantity in PREDICTED]
        digests = [t.digest[:8] for t in priced if t.quantity in self.problem.limits]
        return " ".join([target, *digests])

    @property
    def proposals(self) -> list[Trial]:
        """What was proposed for this budget and these searches, by number."""
        return [t for t in self.trials("calibration") if t.target == self.target]

    @property
    def next_number(self) -> int:
        """That of the next trial."""
        # Not their count: a line may have been removed.
        return 1 + max((trial.number for trial in self.stored), default=-1)


def measured(
    job: Job,
    allocation: Allocation,
    text: str,
    origin: str,
    target: str = "",
    spent: Mapping[str, float] = MappingProxyType({}),
) -> Trial:
    """Measure an allocation and store the trial, with what was spent to find it."""
    trial = job.measurement.trial(job.next_number, allocation, text, origin, target)
    trial = replace(trial, values={**trial.values, **spent})
    job.results.append(trial)
    job.stored.append(trial)
    return trial
