"""What quantization costs in multiple-choice answers, at uniform widths and as searched.

    python benchmarks/items.py ITEMS
    python benchmarks/answers.py MODEL CALIBRATION EVALUATION --out DIRECTORY
        --items ITEMS/arc_easy.jsonl,ITEMS/piqa.jsonl | --tasks bundled_arc_easy --include ITEMS
        [--n-items 250] [--budgets 3bits,4bits] [--dtype float32]

For each file of items, or task of lm-eval, a row of the unquantized model, of the uniform baseline
of each budget in whole bits, and of the best point within it. Changes are against the unquantized
model on the same items: `acc_p` is McNemar's exact test, `margin_p` that of random signs of the
differences in margin (log-likelihood of the right choice above the best wrong one); `_low` and
`_high` are 95 % intervals, Wilson's of an accuracy and by bootstrap over items of a change.
Appends to `benchmarks/results/answers.csv`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from record import Record
from studies import MENU, SIZES, parser, searched_study

from bitfront import Budget, Choice, run_study
from bitfront.exam import Ask, Examined, examined, of_files, of_tasks, points
from bitfront.formats import named
from bitfront.results import Results

COLUMNS = (
    *("model", "dtype", "items", "n", "point", "bits", "bits_per_weight", "kl", "acc", "acc_low"),
    *("acc_high", "acc_norm", "acc_norm_low", "acc_norm_high", "lost", "gained", "acc_change"),
    *("acc_change_low", "acc_change_high", "acc_p", "margin", "margin_change"),
    *("margin_change_low", "margin_change_high", "margin_p", "n_trials", "seed"),
)


def main() -> None:
    """Search under every budget, then put the items to the points and record their rows."""
    arguments = parse()
    record = Record("answers", COLUMNS)
    budgets = [Budget.parse(text) for text in arguments.budgets.split(",")]
    study = searched_study(
        arguments,
        budget=budgets[0],
        searches=Choice.parse_list(arguments.search),
        n_finalists=4,
        dtype=arguments.dtype,
    )
    chosen = {
        run_study(replace(study, budget=x), arguments.out).best("kl", **x.bounds()).number: str(x)
        for x in budgets
    }
    measured = {trial.number: trial for trial in Results(arguments.out).trials("evaluation")}
    wanted = {x.value for x in budgets}
    uniform = {
        number: f"uniform {format}"
        for number, trial in measured.items()
        if trial.origin == "uniform"
        and named(format := min(trial.allocation.formats.values())).code_bits in wanted
    }
    names = uniform | {number: f"searched {text}" for number, text in chosen.items()}
    for row in examined(points(arguments.out, trials=list(names)), asked(arguments)):
        number = int(row.point.partition(" ")[2] or -1)
        kl = measured[number].values["kl"] if number >= 0 else 0.0
        record.add(
            model=Path(arguments.model).name,
            dtype=arguments.dtype,
            point=names.get(number, row.point),
            kl=round(kl, 6),
            n_trials=arguments.n_trials,
            seed=arguments.seed,
            **columns(row),
        )


def asked(arguments: argparse.Namespace) -> Ask:
    """What is put to the models: files by our own scorer, or tasks by lm-eval's."""
    if arguments.tasks:
        return of_tasks(arguments.tasks.split(","), arguments.include, arguments.n_items)
    return of_files([Path(x) for x in arguments.items.split(",")], arguments.n_items)


def columns(row: Examined) -> dict[str, object]:
    """What the row says, each interval in two columns."""
    fields = row.to_fields()
    for name in [key for key in fields if key.endswith("_95")]:
        low, high = fields.pop(name)  # type: ignore[misc]
        fields |= {name.replace("_95", "_low"): low, name.replace("_95", "_high"): high}
    return {
        key: round(value, 6) if isinstance(value, float) else value
        for key, value in fields.items()
        if key in COLUMNS and key != "point"
    }


def parse() -> argparse.Namespace:
    """Command line."""
    made = parser(
        __doc__,
        n_items=250,
        budgets="3bits,4bits",
        formats=",".join(MENU),
        pin="int8_g64",
        search="trust_region,posterior_ilp",
        n_trials=8,
        **SIZES,
        dtype="float32",
    )
    given = made.add_mutually_exclusive_group(required=True)
    given.add_argument("--items", help="JSON lines, separated by commas")
    given.add_argument("--tasks", help="tasks of lm-eval, separated by commas")
    made.add_argument("--include", type=Path, help="folder with tasks as YAML")
    arguments = made.parse_args()
    if arguments.include and not arguments.tasks:
        made.error("--include is the folder of --tasks: leave it out, or name a task.")
    return arguments


if __name__ == "__main__":
    main()
