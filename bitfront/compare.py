"""Comparison: every estimator on one model, judged by measured KL."""

from __future__ import annotations

import ctypes
import gc
import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bitfront.allocation import Allocation
from bitfront.errors import BitfrontError, InvalidArgument
from bitfront.estimates import tokens_of_estimator
from bitfront.experts import FILE as EXPERTS
from bitfront.experts import TokensSeen
from bitfront.files import replacing
from bitfront.job import Job, measured
from bitfront.models.rounded_inputs import has_pairs
from bitfront.models.tasks import device_of
from bitfront.plugins import Choice
from bitfront.problem import Problem
from bitfront.progress import Event, Progress, counted, silent
from bitfront.report.agreement import tau
from bitfront.report.comparison import Compared
from bitfront.run import opened
from bitfront.sensitivity import ESTIMATORS
from bitfront.sensitivity._unseen import imputed
from bitfront.sensitivity.base import Estimated, Estimator, estimate_together, shared_passes
from bitfront.solvers import SOLVERS
from bitfront.study import Study
from bitfront.table import LayerTable
from bitfront.trial import Trial, TrialState

RANGES = {"2_to_3": (2, 3), "3_to_4": (3, 4), "4_to_6": (4, 6)}
"""Ranges of average code bits."""


def compare(
    study: Study,
    estimators: Sequence[Choice],
    directory: Path,
    n_allocations: int = 60,
    progress: Progress = silent,
) -> list[Compared]:
    """Measure allocations of a model, then see how well each estimator ranks them.

    Allocations are spread evenly over `RANGES`: a third random, a third random around one average,
    a third solved at random budgets. They are measured on calibration blocks that no estimator
    sees. Estimators that need the same pass share it, unless caches or rounded inputs are added to
    their tables, as a search adds them; what a search refuses there fails here too. An interrupted
    comparison continues: measured allocations and finished estimators are stored.

    Args:
        study: model, menu, texts and quantizer; its estimator solves the last third.
        estimators: which ones.
        directory: results folder.
        n_allocations: how many are measured.
        progress: called as the work goes on.

    Returns:
        The best first; those that failed last.

    Raises:
        BitfrontError: as `run_study`.
    """
    if n_allocations < 3:
        raise InvalidArgument(f"n_allocations is {n_allocations}: give at least 3.")
    built = {str(choice): ESTIMATORS.build(choice.name, choice.params) for choice in estimators}
    with opened(study, directory, progress) as job:
        trials = _measured(job, n_allocations)
        done = {each.estimator: each for each in read_comparison(directory)}
        waiting = {name: x for name, x in built.items() if not _known(job, done.get(name), x)}
        names = {id(estimator): name for name, estimator in waiting.items()}
        for group in _groups(job, list(waiting.values())):
            for made in _group(job, group, names, trials):
                done[made.estimator] = made
            _write(directory, list(done.values()))
        again = [_judged(job, done[name], trials) for name in built]
    best = sorted(again, key=_rank)
    _write(directory, [*best, *(x for name, x in done.items() if name not in built)])
    return best


def _known(job: Job, row: Compared | None, estimator: Estimator) -> bool:
    """Whether a finished row is of this very estimator: its hyperparameters and version."""
    if row is None or row.error:
        return False
    table = job.results.load_table(_table_name(row.estimator), job.problem.space)
    return table is not None and table.source.startswith(estimator.label)


def _rank(row: Compared) -> tuple[bool, float]:
    tau = row.tau.get("all")
    return row.error is not None, 2.0 if tau is None else -tau


def read_comparison(directory: Path) -> list[Compared]:
    """What a folder holds of comparisons; nothing where none was made."""
    path = directory / "comparison.json"
    if not path.exists():
        return []
    rows = json.loads(path.read_text())
    return [Compared(**row | {"shared": tuple(row["shared"])}) for row in rows]


def _write(directory: Path, rows: Sequence[Compared]) -> None:
    with replacing(directory / "comparison.json") as temporary:
        temporary.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def _measured(job: Job, n_allocations: int) -> list[Trial]:
    """Trials on the calibration text, those stored among them."""
    wanted = allocations(job.problem, n_allocations)
    known = {trial.allocation for trial in job.trials("calibration")}
    for index, allocation in enumerate(wanted):
        trial = None
        if allocation not in known:
            job.progress(Event("search", index, len(wanted)))
            trial = measured(job, allocation, "calibration", "random")
        job.progress(Event("search", index + 1, len(wanted), trial))
    chosen = set(wanted)
    complete = [t for t in job.trials("calibration") if t.state is TrialState.COMPLETE]
    return [trial for trial in complete if trial.allocation in chosen]


def _group(
    job: Job, group: Sequence[Estimator], names: Mapping[int, str], trials: Sequence[Trial]
) -> list[Compared]:
    """Estimators that share a pass; the error in place of figures where it fails."""
    mine = [names[id(estimator)] for estimator in group]
    patched = job.measurement.patched
    patched.apply(Allocation({}))
    peak = _PeakMemory(device_of(patched.model))
    try:
        made = _estimated(job, group)
    except BitfrontError as error:
        if len(group) == 1:
            return [Compared(mine[0], error=str(error))]
        # One of them fails: alone, the others need not.
        return [each for one in group for each in _group(job, [one], names, trials)]
    rise = peak.rise_mb()
    found = []
    seen = TokensSeen.load(job.results.directory / EXPERTS)
    for name, estimator, estimated in zip(mine, group, made, strict=True):
        by = tokens_of_estimator(estimator, patched.model, job.tokens["estimation"], seen)
        table = imputed(estimated.table, by, patched.model, patched.bank)  # as a search does
        job.results.save_table(_table_name(name), table)
        others = tuple(other for other in mine if other != name)
        row = Compared(name, {}, round(estimated.seconds, 3), rise, others, table.note)
        found.append(_judged(job, row, trials))
    return found


def _groups(job: Job, estimators: Sequence[Estimator]) -> list[list[Estimator]]:
    """Those that share a pass; each alone where a search adds caches or rounded inputs."""
    if _adds_to_weights(job):
        return [[estimator] for estimator in estimators]
    return shared_passes(estimators)


def _adds_to_weights(job: Job) -> bool:
    return job.problem.space.kv_cache is not None or has_pairs(job.problem.space)


def _estimated(job: Job, group: Sequence[Estimator]) -> list[Estimated]:
    """The tables that a search would use, of one of `_groups`."""
    patched, space = job.measurement.patched, job.problem.space
    given = (patched.model, job.tokens["estimation"], space, patched.bank)
    show = counted(job.progress, "estimate")
    if not _adds_to_weights(job):
        return estimate_together(group, *given, show)
    (alone,), start = group, time.perf_counter()
    return [Estimated(alone.whole_table(*given, show), time.perf_counter() - start)]


def _judged(job: Job, row: Compared, trials: Sequence[Trial]) -> Compared:
    """The row with tau over the trials, from the stored table."""
    table = (
        None if row.error else job.results.load_table(_table_name(row.estimator), job.problem.space)
    )
    if table is None:
        return row
    predicted = [predicted_loss(table, trial.allocation) for trial in trials]
    losses, bits = [t.loss for t in trials], [t.values["bits"] for t in trials]
    return replace(row, tau=taus(predicted, losses, bits))


def _table_name(estimator: str) -> str:
    return "compared-" + re.sub(r"[^A-Za-z0-9_.=-]", "_", estimator)


def predicted_loss(table: LayerTable, allocation: Allocation) -> float:
    """What the additive table says of an allocation."""
    return table.total(table.space.encode(allocation))


def allocations(problem: Problem, n: int) -> list[Allocation]:
    """As many in each of `RANGES` as the menu reaches, at random average bits within it; seeded.

    In turn: formats drawn independently with the widest distribution of that average, drawn around
    it, and the problem's table solved at it in code bits.
    """
    rng = np.random.default_rng(0)
    space = problem.space
    bits = np.array([f.code_bits for f in space.formats], dtype=np.float64)
    cost = problem.cost("code_bits").grouped
    low, high = cost.min(axis=1).sum(), np.where(np.isfinite(cost), cost, 0).max(axis=1).sum()
    reached = [(max(a, bits.min()), min(b, bits.max())) for a, b in RANGES.values()]
    reached = [(a, b) for a, b in reached if a < b] or [(bits.min(), bits.max())]
    made = []
    for index in range(n):
        average = rng.uniform(*reached[index // 3 % len(reached)])
        if index % 3 == 2:
            limit = float(np.clip(np.floor(average * space.n_weights), low, high))
            solved = SOLVERS.build("lagrangian").solve(problem.with_limits({"code_bits": limit}))
            made.append(space.decode(solved.choice))
            continue
        shares = _shares(bits, average, 0.0 if index % 3 == 0 else 1.0)
        drawn = rng.choice(len(bits), size=len(space.groups), p=shares)
        made.append(space.decode(_fitting(problem, drawn)))
    return list(dict.fromkeys(made))


def _shares(bits: NDArray[np.float64], average: float, narrow: float) -> NDArray[np.float64]:
    """Chances of formats whose mean bits are `average`, normal around it as far as `narrow` says.

    The widest of all such distributions is exponential in the bits; its rate is bisected.
    """
    low, high = -50.0, 50.0
    for _ in range(60):
        rate = (low + high) / 2
        exponent = rate * bits - narrow * (bits - average) ** 2 / 2
        shares = np.exp(exponent - exponent.max())
        shares /= shares.sum()
        low, high = (rate, high) if shares @ bits < average else (low, rate)
    return np.asarray(shares)


def _fitting(problem: Problem, choice: NDArray[np.int64]) -> NDArray[np.int64]:
    """The choice, with the first format that fits where the chosen one does not."""
    allowed = problem.space.group_allowed
    fits = allowed[np.arange(len(choice)), choice]
    return np.where(fits, choice, allowed.argmax(axis=1))


def within(bits: Sequence[float]) -> dict[str, NDArray[np.bool_]]:
    """Which values lie in each range of bits, by the name of the range."""
    values = np.array(bits)
    return {name: (values >= low) & (values < high) for name, (low, high) in RANGES.items()}


def taus(
    first: Sequence[float], second: Sequence[float], bits: Sequence[float]
) -> dict[str, float | None]:
    """Kendall's tau over all allocations, and over those of each range with more than two."""
    parts = {"all": np.ones(len(bits), dtype=bool)} | within(bits)
    x, y = np.array(first), np.array(second)
    found = {name: tau(x[i].tolist(), y[i].tolist()) for name, i in parts.items() if i.sum() > 2}
    return {name: None if each is None else round(each, 4) for name, each in found.items()}


def _return_free_memory() -> None:
    """Give freed memory back to the system, where the C library can."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


class _PeakMemory:
    """How far memory rises from now on: of the model's GPU, else of this process on Linux."""

    def __init__(self, device: torch.device) -> None:
        gc.collect()
        self._gpu = device if device.type == "cuda" else None
        if self._gpu is not None:
            torch.cuda.reset_peak_memory_stats(self._gpu)
            self._before: float | None = float(torch.cuda.memory_allocated(self._gpu))
            return
        _return_free_memory()  # else a pass would find its memory in what earlier ones left
        self._before = self._read("VmRSS")
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        except OSError:
            self._before = None

    def rise_mb(self) -> float | None:
        """In units of 10^6 bytes, since it was made."""
        gpu = self._gpu
        peak = self._read("VmHWM") if gpu is None else torch.cuda.max_memory_allocated(gpu)
        if peak is None or self._before is None:
            return None
        return round((peak - self._before) / 1e6, 1)

    @staticmethod
    def _read(key: str) -> float | None:
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
        except OSError:
            return None
        found = (line.split() for line in lines if line.startswith(f"{key}:"))
        return next((1024.0 * float(words[1]) for words in found), None)
