"""How well each estimator predicts measured KL: Kendall's tau, seconds, peak memory.

    python benchmarks/estimators.py MODEL CALIBRATION EVALUATION --out DIRECTORY
        [--estimators fisher,leave_one_in:max_sequences=2] [--n-allocations 60] [--seeds 0,1,2]

What `bitfront compare` does (`bitfront.compare`), for several seeds: each has blocks of its own.
Seconds are those an estimator would take alone, memory is that of the pass it shares. Appends to
`benchmarks/results/estimators.csv`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from record import Record
from studies import MENU, parser, untied_study

from bitfront import Budget, Choice
from bitfront.compare import compare
from bitfront.sensitivity import ESTIMATORS

COLUMNS = (
    *("model", "seed", "estimator", "tau", "tau_2_to_3", "tau_3_to_4", "tau_4_to_6"),
    *("n_allocations", "seconds", "cpu_seconds", "peak_mb", "base_mb"),
    *("n_sequences", "sequence_length", "n_judged_tokens"),
)


def main() -> None:
    """Compare under every seed and record a row for each estimator."""
    arguments = parse()
    record = Record("estimators", COLUMNS)
    study = untied_study(
        arguments,
        arguments.n_sequences,
        n_evaluation=1,
        budget=Budget(4, "bits"),
        formats=tuple(arguments.formats.split(",")),
        estimator=Choice("weight_error"),
        n_search_sequences=arguments.n_judged,
        pinned="int8_channel",
    )
    chosen = Choice.parse_list(arguments.estimators)
    for seed in map(int, arguments.seeds.split(",")):
        out = arguments.out / f"seed-{seed}"
        for row in compare(replace(study, seed=seed), chosen, out, arguments.n_allocations):
            if row.error:
                raise SystemExit(f"{row.estimator}: {row.error}")
            record.add(
                model=Path(arguments.model).name,
                seed=seed,
                estimator=row.estimator,
                n_allocations=arguments.n_allocations,
                seconds=row.seconds,
                peak_mb=row.peak_mb,
                n_sequences=arguments.n_sequences,
                sequence_length=arguments.length,
                n_judged_tokens=arguments.n_judged * arguments.length,
                **columns(row.tau),
            )


def columns(tau: dict[str, float | None]) -> dict[str, float | None]:
    """Tau by range under the names of the columns."""
    return {"tau" if name == "all" else f"tau_{name}": value for name, value in tau.items()}


def parse() -> argparse.Namespace:
    """Command line."""
    made = parser(__doc__)
    made.add_argument("--estimators", default=",".join(ESTIMATORS.names()))
    made.add_argument("--formats", default=",".join(MENU))
    made.add_argument("--n-allocations", type=int, default=60)
    made.add_argument("--n-sequences", type=int, default=8)
    made.add_argument("--n-judged", type=int, default=4)
    made.add_argument("--length", type=int, default=256)
    made.add_argument("--seeds", default="0,1,2")
    return made.parse_args()


if __name__ == "__main__":
    main()
