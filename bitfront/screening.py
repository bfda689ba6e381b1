"""Screening: allocations measured on few sequences before one of them is measured whole."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitfront.allocation import Allocation
from bitfront.measurement import Measurement
from bitfront.problem import Problem
from bitfront.progress import Event, Progress
from bitfront.results import Results
from bitfront.search.base import Search
from bitfront.trial import Screened, Trial


@dataclass(frozen=True, eq=False)
class Screener:
    """Measures what searches ask to be screened, each allocation once.

    Args:
        measurement: the model with its quantized weights and references.
        results: the folder, where every value is stored as it is measured.
        progress: where steps are reported.
        known: what is stored, by digest of the allocation and number of sequences.
    """

    measurement: Measurement
    results: Results
    progress: Progress
    known: dict[tuple[str, int], Screened]

    @classmethod
    def opened(cls, measurement: Measurement, results: Results, progress: Progress) -> Screener:
        """With what the folder knows."""
        known = {(s.digest, s.n_sequences): s for s in results.screened()}
        return cls(measurement, results, progress, known)

    def answered(
        self,
        search: Search,
        problem: Problem,
        history: Sequence[Trial],
        seed: Sequence[int],
        number: int,
    ) -> Problem:
        """The problem with all that the search asks to be screened in this step.

        What earlier steps asked for is left out: a resumed run could not give it back, because
        the folder keeps digests, not allocations.

        Args:
            search: what asks.
            problem: as in `Search.screen`.
            history: as in `Search.screen`.
            seed: of the generator of this step.
            number: that of the trial which is measured next.
        """
        found: dict[Allocation, dict[int, float]] = {}
        while True:
            problem = replace(problem, screened=found)
            wanted = search.screen(problem, history, np.random.default_rng(seed))
            if wanted is None:
                return problem
            count = wanted.n_sequences
            new = [a for a in wanted.allocations if count not in found.get(a, {})]
            if not new:  # asked again for what it was given
                return problem
            found = {allocation: dict(kl) for allocation, kl in found.items()}
            for index, allocation in enumerate(new):
                found.setdefault(allocation, {})[count] = self._kl(allocation, count, number)
                self.progress(Event("screen", index + 1, len(new)))

    def seconds(self, number: int) -> float:
        """What screening for a trial took, in all runs of the folder."""
        return sum(
            screened.seconds for screened in self.known.values() if screened.number == number
        )

    def _kl(self, allocation: Allocation, n_sequences: int, number: int) -> float:
        """Stored or measured now; infinite where the outputs overflow."""
        key = (allocation.digest, n_sequences)
        if key not in self.known:
            start = time.perf_counter()
            kl = self.measurement.screened(allocation, n_sequences)
            seconds = round(time.perf_counter() - start, 3)
            n_all = len(self.measurement.references["calibration"].tokens)
            finite = kl if math.isfinite(kl) else None
            made = Screened(*key, n_all, finite, number, seconds)
            self.results.append(made)
            self.known[key] = made
        kept = self.known[key].kl
        return math.inf if kept is None else kept
