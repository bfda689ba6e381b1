"""KL at equal bytes where experts have formats of their own, in clusters, or a block has one.

    python -m tests.data.train_tiny_moe --out build/moe --blocks 4 --experts 16
    python benchmarks/experts.py build/moe CALIBRATION EVALUATION --out DIRECTORY
        [--groupings matrix,expert,cluster:8,cluster:4,cluster:2,block] [--budgets 2.75,3.0,3.5]
        [--seeds 0,1,2] [--n-trials 32]

Same budget in bits per weight, same texts, same number of measurements; groupings differ in nothing
but which weights of a block's experts share a format (attention is never tied). `kl` is on the
evaluation text, `bytes` what the chosen point takes, `uniform_kl` interpolated between the uniform
baselines at those bytes. Seeds are of the search and of the blocks of text. Appends to
`benchmarks/results/experts.csv`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from record import Record
from studies import MENU, parser, untied_study

from bitfront import Budget, run_study
from bitfront.experts import TokensSeen
from bitfront.report.agreement import uniform_at
from bitfront.results import Results

COLUMNS = (
    *("model", "grouping", "budget", "seed", "n_groups", "bits_per_weight", "bytes", "kl"),
    *("kl_stderr", "uniform_kl", "over_uniform", "n_trials", "n_experts", "n_unseen", "seconds"),
)
GROUPINGS = "matrix,expert,cluster:8,cluster:4,cluster:2,block"


def main() -> None:
    """Search every grouping at every budget."""
    arguments = parse()
    record = Record("experts", COLUMNS)
    for seed in map(int, arguments.seeds.split(",")):
        for budget in arguments.budgets.split(","):
            for grouping in arguments.groupings.split(","):
                record.add(**searched(arguments, grouping, budget, seed))


def parse() -> argparse.Namespace:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--groupings", default=GROUPINGS)
    made.add_argument("--budgets", default="2.75,3.0,3.5")
    made.add_argument("--seeds", default="0,1,2")
    made.add_argument("--n-trials", type=int, default=32)
    made.add_argument("--n-calibration", type=int, default=16)
    made.add_argument("--n-search", type=int, default=4)
    made.add_argument("--n-evaluation", type=int, default=16)
    made.add_argument("--length", type=int, default=128)
    return made.parse_args()


def searched(
    arguments: argparse.Namespace, grouping: str, budget: str, seed: int
) -> dict[str, object]:
    """One row."""
    study = untied_study(
        arguments,
        arguments.n_calibration,
        arguments.n_evaluation,
        budget=Budget.parse(f"{budget}bpw"),
        experts=grouping,
        formats=MENU,
        pinned="int8_g64",
        n_trials=arguments.n_trials,
        n_search_sequences=arguments.n_search,
        seed=seed,
    )
    folder = arguments.out / f"{grouping.replace(':', '')}-{budget}-{seed}"
    begun = time.perf_counter()
    front = run_study(study, folder)
    seconds = time.perf_counter() - begun
    results = Results(folder)
    chosen = front.best("kl", **study.budget.bounds())
    measured = [t for t in results.trials("evaluation") if t.origin == "uniform"]
    uniforms = sorted(measured, key=lambda t: t.values["bytes"])
    baseline = uniform_at(tuple(uniforms), chosen.values["bytes"])
    seen = TokensSeen.load(folder / "experts.json")
    kl, uniform = chosen.values["kl"], baseline.kl if baseline else None
    return {
        "model": Path(arguments.model).name,
        "grouping": grouping,
        "budget": f"{budget}bpw",
        "seed": seed,
        "n_groups": len(results.space.groups),
        "bits_per_weight": round(chosen.values["bits_per_weight"], 4),
        "bytes": int(chosen.values["bytes"]),
        "kl": f"{kl:.5f}",
        "kl_stderr": f"{chosen.values['kl_stderr']:.5f}",
        "uniform_kl": f"{uniform:.5f}" if uniform else "",
        "over_uniform": f"{kl / uniform:.4f}" if uniform else "",
        "n_trials": len(results.trials("calibration")),
        "n_experts": seen.n_experts,
        "n_unseen": seen.n_unseen,
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    main()
