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
from pathlib import Path

from record import Record
from studies import MENU, Answer, parser, searched_study

from bitfront import Budget
from bitfront.experts import TokensSeen

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
    return parser(
        __doc__,
        groupings=GROUPINGS,
        budgets="2.75,3.0,3.5",
        seeds="0,1,2",
        formats=",".join(MENU),
        pin="int8_g64",
        n_trials=32,
        n_sequences=16,
        n_search=4,
        n_evaluation=16,
        length=128,
    ).parse_args()


def searched(
    arguments: argparse.Namespace, grouping: str, budget: str, seed: int
) -> dict[str, object]:
    """One row."""
    study = searched_study(
        arguments, budget=Budget.parse(f"{budget}bpw"), experts=grouping, seed=seed
    )
    folder = arguments.out / f"{grouping.replace(':', '')}-{budget}-{seed}"
    answer = Answer.of(study, folder)
    chosen, seen = answer.best, TokensSeen.load(folder / "experts.json")
    return {
        "model": Path(arguments.model).name,
        "grouping": grouping,
        "budget": f"{budget}bpw",
        "seed": seed,
        "n_groups": len(answer.results.space.groups),
        "bits_per_weight": round(chosen.values["bits_per_weight"], 4),
        "bytes": int(chosen.values["bytes"]),
        "kl": f"{chosen.values['kl']:.5f}",
        "kl_stderr": f"{chosen.values['kl_stderr']:.5f}",
        "uniform_kl": f"{answer.uniform:.5f}" if answer.uniform else "",
        "over_uniform": answer.over_uniform,
        "n_trials": len(answer.results.trials("calibration")),
        "n_experts": seen.n_experts,
        "n_unseen": seen.n_unseen,
        "seconds": answer.seconds,
    }


if __name__ == "__main__":
    main()
