"""How well each estimator predicts measured KL: Kendall's tau, seconds, peak memory.

    python benchmarks/estimators.py MODEL CALIBRATION EVALUATION --out DIRECTORY
        [--estimators fisher,fisher_output] [--n-allocations 60]

Allocations: a third uniformly random, a third random around an average width, a third optimised
for the weight-error table at random budgets, so that tau is judged over what searches visit. Each
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

import numpy as np
from record import Record
from scipy.stats import kendalltau

from bitfront import Allocation, Budget, Choice, LayerTable, Problem, Study, TextSource
from bitfront.inputs import build_bank, prepare
from bitfront.run import measured, opened
from bitfront.sensitivity import ESTIMATORS
from bitfront.solvers import SOLVERS

MENU = ("int2_g64", "int3_g64", "int4_g64", "int5_g64", "int8_g64")
COLUMNS = (
    *("estimator", "tau", "tau_2_to_3", "tau_3_to_4", "tau_4_to_6", "n_allocations"),
    *("seconds", "peak_mb", "base_mb", "n_sequences", "sequence_length", "n_judged_tokens"),
)
RANGES = {"tau_2_to_3": (2, 3), "tau_3_to_4": (3, 4), "tau_4_to_6": (4, 6)}


def main() -> None:
    """Measure the allocations once, then estimate in one process per estimator."""
    arguments = parse()
    record = Record("estimators", COLUMNS)
    study = study_of(arguments)
    trials = measured_allocations(study, arguments)
    for name in arguments.estimators.split(","):
        # A fresh process: peak memory only ever rises within one.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            table, seconds, base, peak = pool.apply(estimated, (study, name, arguments.out))
        predicted = [table_sum(table, allocation) for allocation, _ in trials]
        record.add(
            estimator=name,
            n_allocations=len(trials),
            seconds=round(seconds, 1),
            peak_mb=round(peak),
            base_mb=round(base),
            n_sequences=study.calibration.n_sequences,
            sequence_length=study.calibration.sequence_length,
            n_judged_tokens=study.n_search_sequences * study.calibration.sequence_length,
            **taus(predicted, trials),
        )


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("calibration")
    parser.add_argument("evaluation")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--estimators", default=",".join(ESTIMATORS.names()))
    parser.add_argument("--n-allocations", type=int, default=60)
    parser.add_argument("--n-sequences", type=int, default=8)
    parser.add_argument("--n-judged", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    return parser.parse_args()


def study_of(arguments: argparse.Namespace) -> Study:
    """The study whose folder keeps bank and measured allocations."""
    return Study(
        model=arguments.model,
        budget=Budget(4, "bits"),
        calibration=TextSource(arguments.calibration, arguments.n_sequences, arguments.length),
        evaluation=TextSource(arguments.evaluation, 1, arguments.length),
        formats=MENU,
        estimator=Choice("weight_error"),
        n_search_sequences=arguments.n_judged,
        tied=False,
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


def allocations(problem: Problem, n: int) -> list[Allocation]:
    """Random, width-biased random, and optimised allocations, seeded."""
    rng = np.random.default_rng(0)
    space = problem.space
    n_groups, n_formats = len(space.groups), len(space.formats)
    made = []
    for index in range(n):
        if index % 3 == 0:
            choice = rng.integers(n_formats, size=n_groups)
        elif index % 3 == 1:
            centre = rng.uniform(0, n_formats - 1)
            choice = np.clip(np.rint(rng.normal(centre, 0.8, n_groups)), 0, n_formats - 1)
        else:
            limit = np.floor(rng.uniform(2.2, 6) * space.n_weights)
            solver = SOLVERS.build("lagrangian")
            choice = solver.solve(problem.with_limits({"code_bits": float(limit)})).choice
        made.append(space.decode(choice.astype(np.int64)))
    return list(dict.fromkeys(made))


def estimated(study: Study, name: str, out: Path) -> tuple[LayerTable, float, float, float]:
    """Table, seconds, and peak memory (MB) before and after, in this process."""
    inputs = prepare(study)
    bank = build_bank(study, inputs, out / "bank")
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    start = time.perf_counter()
    estimator = ESTIMATORS.build(name)
    table = estimator.estimate(inputs.model.module, inputs.estimation, inputs.space, bank)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    (out / "estimated").mkdir(exist_ok=True)
    (out / "estimated" / f"{name}.json").write_text(json.dumps(table.values.tolist()))
    return table, seconds, base, peak


def table_sum(table: LayerTable, allocation: Allocation) -> float:
    """What the additive table predicts."""
    return table.total(table.space.encode(allocation))


def taus(
    predicted: list[float], trials: list[tuple[Allocation, dict[str, float]]]
) -> dict[str, float]:
    """Kendall's tau over all allocations, and over those of each range of average bits."""
    bits = np.array([values["bits"] for _, values in trials])
    kl = np.array([values["kl"] for _, values in trials])
    guess = np.array(predicted)
    result = {"tau": round(float(kendalltau(guess, kl).statistic), 4)}
    for name, (low, high) in RANGES.items():
        inside = (bits >= low) & (bits < high)
        if inside.sum() > 2:
            result[name] = round(float(kendalltau(guess[inside], kl[inside]).statistic), 4)
    return result


if __name__ == "__main__":
    main()
