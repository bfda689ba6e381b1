"""What each search finds: hypervolume of measured allocations near the budget, and best KL in it.

    python benchmarks/searches.py MODEL CALIBRATION EVALUATION --out DIRECTORY --budget 3.5bits
        [--searches random,sweep,posterior_ilp,trust_region] [--steps 16,32,64,128] [--seeds 0,1,2]

All searches share bank, texts and loss table. Hypervolume is over (log KL, bytes) within 15 % of
the budget's bytes, relative to the largest found at the most trials by any search of the same
seed. Uniform baselines count as trials. Appends to `benchmarks/results/searches.csv`.
"""

from __future__ import annotations

import argparse
import math
import shutil
from pathlib import Path

import numpy as np
from record import Record
from studies import MENU, parser, untied_study

from bitfront import Budget, Choice, Study, Trial
from bitfront.pareto import hypervolume
from bitfront.results import Results
from bitfront.run import opened
from bitfront.searching import search_trials

COLUMNS = (
    *("model", "budget", "search", "seed", "n_trials", "hypervolume_share", "best_kl"),
    *("estimator", "n_layers", "n_tokens"),
)
NEAR = 0.15


def main() -> None:
    """Run every search to the largest number of trials, then read off the smaller ones."""
    arguments = parse()
    record = Record("searches", COLUMNS)
    steps = [int(step) for step in arguments.steps.split(",")]
    for seed in map(int, arguments.seeds.split(",")):
        runs = {
            name: searched(arguments, name, seed, steps[-1])
            for name in arguments.searches.split(",")
        }
        trials = [t for run in runs.values() for t in run]
        limit = budget_bytes(arguments, seed)
        reference = reference_point(trials, limit)
        volume = {
            (name, step): near_volume(run[:step], limit, reference)
            for name, run in runs.items()
            for step in steps
        }
        for (name, step), found in volume.items():
            within = [t.values["kl"] for t in runs[name][:step] if t.values["bytes"] <= limit]
            record.add(
                model=Path(arguments.model).name,
                budget=arguments.budget,
                search=name,
                seed=seed,
                n_trials=min(step, len(runs[name])),
                hypervolume_share=round(found / max(volume.values()), 4),
                best_kl=min(within),
                estimator=arguments.estimator,
                n_layers=len(trials[0].allocation.formats),
                n_tokens=arguments.n_search * arguments.length,
            )


def parse() -> argparse.Namespace:
    """Command line."""
    made = parser(__doc__)
    made.add_argument("--budget", default="3.5bits")
    made.add_argument("--formats", default=",".join(MENU))
    made.add_argument("--searches", default="random,sweep,posterior_ilp,trust_region")
    made.add_argument("--estimator", default=str(Study.estimator))
    made.add_argument("--steps", default="16,32,64,128")
    made.add_argument("--seeds", default="0,1,2")
    made.add_argument("--n-search", type=int, default=4)
    made.add_argument("--length", type=int, default=256)
    return made.parse_args()


def study_of(arguments: argparse.Namespace, search: str, seed: int, n_trials: int) -> Study:
    """One search under one seed."""
    return untied_study(
        arguments,
        n_calibration=8,
        n_evaluation=1,
        budget=Budget.parse(arguments.budget),
        formats=tuple(arguments.formats.split(",")),
        estimator=Choice.parse(arguments.estimator),
        searches=Choice.parse_list(search),
        n_trials=n_trials,
        n_search_sequences=arguments.n_search,
        seed=seed,
        pinned="int8_channel",
    )


def folder(arguments: argparse.Namespace, search: str, seed: int) -> Path:
    """Results folder of one search."""
    return arguments.out / f"{search}-{seed}"


def searched(
    arguments: argparse.Namespace, search: str, seed: int, n_trials: int
) -> tuple[Trial, ...]:
    """Its calibration trials; the bank of the first search serves the others."""
    out = folder(arguments, search, seed)
    bank = arguments.out / "bank"
    if bank.exists() and not out.exists():
        shutil.copytree(bank, out / "bank")
    with opened(study_of(arguments, search, seed, n_trials), out) as job:
        search_trials(job)
    if not bank.exists():
        shutil.copytree(out / "bank", bank)
    return Results(out).trials("calibration")


def budget_bytes(arguments: argparse.Namespace, seed: int) -> float:
    """Bytes of the whole checkpoint of the best allocation's size class: the budget in bytes."""
    results = Results(folder(arguments, arguments.searches.split(",")[0], seed))
    bound = Budget.parse(arguments.budget).bounds()
    within = [
        t.values["bytes"]
        for t in results.trials("calibration")
        if all(t.values[quantity] <= limit for quantity, limit in bound.items())
    ]
    return max(within)


def reference_point(trials: list[Trial], limit: float) -> np.ndarray:
    """Just beyond the worst point near the budget, `(log kl, bytes)`."""
    near = [t for t in trials if abs(t.values["bytes"] / limit - 1) <= NEAR]
    return np.array([max(math.log(t.values["kl"]) for t in near) + 1e-9, limit * (1 + NEAR)])


def near_volume(trials: tuple[Trial, ...], limit: float, reference: np.ndarray) -> float:
    """Hypervolume of the trials near the budget."""
    points = [
        (math.log(t.values["kl"]), t.values["bytes"])
        for t in trials
        if abs(t.values["bytes"] / limit - 1) <= NEAR
    ]
    return hypervolume(np.array(points).reshape(-1, 2), reference)


if __name__ == "__main__":
    main()
