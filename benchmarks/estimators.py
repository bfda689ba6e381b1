"""How well each estimator predicts measured KL: Kendall's tau, seconds, peak memory.

    python benchmarks/estimators.py MODEL CALIBRATION EVALUATION --out DIRECTORY
        [--estimators fisher,leave_one_in:max_sequences=2] [--n-allocations 60]

Tau is judged over what searches visit: see `allocations.py`, with the weight-error table. Each
estimator runs in a process of its own, so that peak memory is its own. Appends to
`benchmarks/results/estimators.csv`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from pathlib import Path

from allocations import allocations, taus
from record import Record
from stopwatch import cpu_seconds
from studies import parser, untied_study

from bitfront import Allocation, Budget, Choice, LayerTable, Study
from bitfront.inputs import build_bank, prepare
from bitfront.run import opened
from bitfront.searching import measured
from bitfront.sensitivity import ESTIMATORS

COLUMNS = (
    *("estimator", "tau", "tau_2_to_3", "tau_3_to_4", "tau_4_to_6", "n_allocations"),
    *("seconds", "cpu_seconds", "peak_mb", "base_mb"),
    *("n_sequences", "sequence_length", "n_judged_tokens"),
)


def main() -> None:
    """Measure the allocations once, then estimate in one process per estimator."""
    arguments = parse()
    record = Record("estimators", COLUMNS)
    study = study_of(arguments)
    trials = measured_allocations(study, arguments)
    kl, bits = ([values[name] for _, values in trials] for name in ("kl", "bits"))
    for name in arguments.estimators.split(","):
        # A fresh process: peak memory only ever rises within one.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            table, seconds, cpu, base, peak = pool.apply(estimated, (study, name, arguments.out))
        predicted = [table_sum(table, allocation) for allocation, _ in trials]
        record.add(
            estimator=name,
            n_allocations=len(trials),
            seconds=round(seconds, 1),
            cpu_seconds=round(cpu, 1),
            peak_mb=round(peak),
            base_mb=round(base),
            n_sequences=study.calibration.n_sequences,
            sequence_length=study.calibration.sequence_length,
            n_judged_tokens=study.n_search_sequences * study.calibration.sequence_length,
            **taus(predicted, kl, bits),
        )


def parse() -> argparse.Namespace:
    """Command line."""
    made = parser(__doc__)
    made.add_argument("--estimators", default=",".join(ESTIMATORS.names()))
    made.add_argument("--n-allocations", type=int, default=60)
    made.add_argument("--n-sequences", type=int, default=8)
    made.add_argument("--n-judged", type=int, default=4)
    made.add_argument("--length", type=int, default=256)
    return made.parse_args()


def study_of(arguments: argparse.Namespace) -> Study:
    """The study whose folder keeps bank and measured allocations."""
    return untied_study(
        arguments,
        arguments.n_sequences,
        n_evaluation=1,
        budget=Budget(4, "bits"),
        estimator=Choice("weight_error"),
        n_search_sequences=arguments.n_judged,
    )


def measured_allocations(
    study: Study, arguments: argparse.Namespace
) -> list[tuple[Allocation, dict[str, float]]]:
    """Allocations with their values on calibration blocks that no estimator sees."""
    with opened(study, arguments.out) as job:
        done = {t.allocation: t for t in job.results.trials("calibration")}
        for allocation in allocations(job.problem, arguments.n_allocations):
            if allocation not in done:
                done[allocation] = measured(job, allocation, "calibration", "random")
    return [(a, dict(t.values)) for a, t in done.items() if "kl" in t.values]


def estimated(study: Study, name: str, out: Path) -> tuple[LayerTable, float, float, float, float]:
    """Table, wall and CPU seconds, and peak memory (MB) before and after, in this process."""
    inputs = prepare(study)
    bank = build_bank(study, inputs, out / "bank")
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    start, cpu = time.perf_counter(), cpu_seconds()
    choice = Choice.parse(name)
    estimator = ESTIMATORS.build(choice.name, choice.params)
    table = estimator.estimate(inputs.model.module, inputs.estimation, inputs.space, bank)
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    (out / "estimated").mkdir(exist_ok=True)
    (out / "estimated" / f"{name}.json").write_text(json.dumps(table.values.tolist()))
    return table, seconds, cpu, base, peak


def table_sum(table: LayerTable, allocation: Allocation) -> float:
    """What the additive table predicts."""
    return table.total(table.space.encode(allocation))


if __name__ == "__main__":
    main()
