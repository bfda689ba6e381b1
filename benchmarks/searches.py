"""What each search finds: hypervolume of measured allocations near the budget, and best KL in it.

    python benchmarks/searches.py MODEL CALIBRATION EVALUATION --out DIRECTORY --budget 3.5bits
        [--searches random,sweep,posterior_ilp,evolution@2000] [--steps 16,32,64,128]
        [--seeds 0,1,2] [--n-pairs 24] [--costs memory,latency:table=gpu.json]

A search is one or several plug-ins joined by "+", which then propose in turn; `@2000` runs it to
so many measurements, others to the last step. All share bank, texts and loss table. Uniform
baselines count as measurements, a screening by its share of the tokens, and so do those of the
`--n-pairs` pairs that a search with `solver=quadratic` starts from. Hypervolume is over log KL,
bytes and, where the costs give one, latency, within 15 % of the budget's bytes, relative to the
largest found by any search of the same seed within the last step. Appends to
`benchmarks/results/searches.csv`.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from record import Record
from studies import MENU, parser, untied_study

from bitfront import Budget, Choice, Study, Trial
from bitfront.pareto import LATENCY, TIMED, hypervolume
from bitfront.results import Results
from bitfront.run import opened
from bitfront.searching import search_trials

COLUMNS = (
    *("model", "budget", "search", "seed", "n_trials", "hypervolume_share", "best_kl"),
    *("estimator", "n_layers", "n_tokens", "objectives"),
)
NEAR = 0.15


def main() -> None:
    """Run every search to the largest number of measurements, then read off the smaller ones."""
    arguments = parse()
    record = Record("searches", COLUMNS)
    steps = [int(step) for step in arguments.steps.split(",")]
    wanted = [name.partition("@") for name in arguments.searches.split(",")]
    for seed in map(int, arguments.seeds.split(",")):
        runs = {
            name: searched(arguments, name, seed, int(most or steps[-1]))
            for name, _, most in wanted
        }
        trials = [t for run in runs.values() for t, _ in run]
        limit = budget_bytes(arguments, seed, wanted[0][0])
        reference = reference_point(trials, limit)
        # A run with nothing left to propose has one row for all later steps.
        reached = dict.fromkeys(
            (name, min(step, math.ceil(run[-1][1])))
            for name, run in runs.items()
            for step in [*steps, *(int(most) for n, _, most in wanted if most and n == name)]
        )
        volume = {
            (name, step): near_volume(until(runs[name], step), limit, reference)
            for name, step in reached
        }
        largest = max(found for (_, step), found in volume.items() if step <= steps[-1])
        for (name, step), found in volume.items():
            done = until(runs[name], step)
            record.add(
                model=Path(arguments.model).name,
                budget=arguments.budget,
                search=name,
                seed=seed,
                n_trials=step,
                hypervolume_share=round(found / largest, 4),
                best_kl=min(t.values["kl"] for t in done if t.values["bytes"] <= limit),
                estimator=arguments.estimator,
                n_layers=len(trials[0].allocation.formats),
                n_tokens=arguments.n_search * arguments.length,
                objectives="+".join(objectives(trials[0])),
            )


def until(run: list[tuple[Trial, float]], step: int) -> list[Trial]:
    """Trials that so many measurements pay for."""
    return [trial for trial, spent in run if spent <= step]


def parse() -> argparse.Namespace:
    """Command line."""
    made = parser(__doc__)
    made.add_argument("--budget", default="3.5bits")
    made.add_argument("--formats", default=",".join(MENU))
    made.add_argument("--costs", default="memory")
    made.add_argument("--searches", default="random,sweep,posterior_ilp,trust_region")
    made.add_argument("--estimator", default=str(Study.estimator))
    made.add_argument("--steps", default="16,32,64,128")
    made.add_argument("--seeds", default="0,1,2")
    made.add_argument("--n-pairs", type=int, default=24)
    made.add_argument("--n-calibration", type=int, default=8)
    made.add_argument("--n-search", type=int, default=4)
    made.add_argument("--length", type=int, default=256)
    return made.parse_args()


def study_of(arguments: argparse.Namespace, search: str, seed: int, n_trials: int) -> Study:
    """One search under one seed."""
    return untied_study(
        arguments,
        n_calibration=arguments.n_calibration,
        n_evaluation=1,
        budget=Budget.parse(arguments.budget),
        formats=tuple(arguments.formats.split(",")),
        estimator=Choice.parse(arguments.estimator),
        searches=tuple(map(Choice.parse, search.split("+"))),
        costs=Choice.parse_list(arguments.costs),
        n_trials=n_trials,
        n_search_sequences=arguments.n_search,
        n_pairs=arguments.n_pairs if "quadratic" in search else 0,
        seed=seed,
        pinned="int8_channel",
    )


def folder(arguments: argparse.Namespace, search: str, seed: int) -> Path:
    """Results folder of one search."""
    return arguments.out / f"{search}-{seed}"


def searched(
    arguments: argparse.Namespace, search: str, seed: int, most: int
) -> list[tuple[Trial, float]]:
    """Its calibration trials, each with the measurements spent until then.

    The bank and the tables of the first search serve the others.
    """
    out, first = folder(arguments, search, seed), arguments.out / f"shared-{seed}"
    if first.exists() and not out.exists():
        shutil.copytree(first, out)
    run = spent_by(Results(out))
    if run and run[-1][1] >= most:
        return run
    with opened(study_of(arguments, search, seed, most), out) as job:
        if not first.exists():
            shutil.copytree(out, first, ignore=shutil.ignore_patterns(".lock", "pairs.json"))
        n_before = -1
        while len(run) > n_before and (not run or run[-1][1] < most):
            # A screening search spends several measurements on a trial: how many shows after some.
            n_before = len(run)
            n_left = (most - run[-1][1]) * n_before / run[-1][1] if run else 16
            n_trials = n_before + math.ceil(n_left)
            search_trials(replace(job, study=replace(job.study, n_trials=n_trials)))
            run = spent_by(job.results)
    return run


def spent_by(results: Results) -> list[tuple[Trial, float]]:
    """Calibration trials with the measurements spent until each, pairs and screenings too."""
    shares: dict[int, float] = {}
    for screened in results.screened():
        shares[screened.number] = shares.get(screened.number, 0.0) + screened.share
    pairs = results.directory / "pairs.json"
    run, spent = [], float(len(json.loads(pairs.read_text()))) if pairs.exists() else 0.0
    for trial in results.trials("calibration"):
        spent += 1 + shares.get(trial.number, 0.0)
        run.append((trial, spent))
    return run


def budget_bytes(arguments: argparse.Namespace, seed: int, search: str) -> float:
    """Bytes of the whole checkpoint of the best allocation's size class: the budget in bytes."""
    results = Results(folder(arguments, search, seed))
    bound = Budget.parse(arguments.budget).bounds()
    within = [
        t.values["bytes"]
        for t in results.trials("calibration")
        if all(t.values[quantity] <= limit for quantity, limit in bound.items())
    ]
    return max(within)


def objectives(trial: Trial) -> tuple[str, ...]:
    """What hypervolumes are over."""
    return TIMED if LATENCY in trial.values else TIMED[:2]


def near_points(trials: list[Trial], limit: float) -> np.ndarray:
    """Of the trials near the budget, `[n, n_objectives]`, the KL as its logarithm."""
    near = [t for t in trials if abs(t.values["bytes"] / limit - 1) <= NEAR]
    names = objectives(trials[0])
    points = np.array([[t.values[name] for name in names] for t in near]).reshape(-1, len(names))
    points[:, 0] = np.log(points[:, 0])
    return points


def reference_point(trials: list[Trial], limit: float) -> np.ndarray:
    """Just beyond the worst point near the budget, `[n_objectives]`."""
    log_kl, _, *latency = near_points(trials, limit).max(axis=0)
    return np.array([log_kl + 1e-9, limit * (1 + NEAR), *(worst + 1 for worst in latency)])


def near_volume(trials: list[Trial], limit: float, reference: np.ndarray) -> float:
    """Hypervolume of the trials near the budget."""
    return hypervolume(near_points(trials, limit), reference)


if __name__ == "__main__":
    main()
