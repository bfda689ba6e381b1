"""Two texts under one budget: layers divided between them, both summed, or one of them alone.

    python benchmarks/decoupled.py MODEL CALIBRATION EVALUATION --out DIRECTORY
        --second-calibration TEXT --second-evaluation TEXT [--budget 3bits] [--n-trials 21]

Every arm measures as many allocations on both texts; its answer has the smallest `both_kl`, the
geometric mean of both KLs, on the evaluation texts. `decoupled` judges each layer by the text that
it hurts more (`auto`) or by patterns of names; `together` solves the weighted sum of both tables,
its weights the same; `first` and `second` are the default searches on one text alone, judged by
both. Appends to `benchmarks/results/decoupled.csv`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from record import Record
from studies import parser, searched_study

from bitfront import Budget, Choice, Study, run_study
from bitfront.results import Results
from bitfront.study import SecondText

COLUMNS = (
    *("model", "first_text", "second_text", "budget", "arm", "layers", "seed", "bits", "first_kl"),
    *("first_stderr", "second_kl", "second_stderr", "both_kl", "best_first_kl", "best_second_kl"),
    *("n_points", "n_trials", "n_judged_tokens"),
)


def main() -> None:
    """Run every arm and record its answer."""
    arguments = parse()
    record = Record("decoupled", COLUMNS)
    for seed in map(int, arguments.seeds.split(",")):
        budget = Budget.parse(arguments.budget)
        study = searched_study(
            arguments, budget=budget, n_finalists=arguments.n_finalists, seed=seed
        )
        second = SecondText(
            replace(study.calibration, source=arguments.second_calibration),
            replace(study.evaluation, source=arguments.second_evaluation),
        )
        study = replace(study, second=second)
        for arm in arguments.arms.split(","):
            name, _, layers = arm.partition("=")
            record.add(**row(arguments, made(study, name, layers or "auto"), name, seed))


def made(study: Study, arm: str, layers: str) -> Study:
    """The study of an arm."""
    second = study.second
    assert second is not None
    if arm == "first":
        return study
    if arm == "second":
        texts = SecondText(study.calibration, study.evaluation)
        return replace(
            study, calibration=second.calibration, evaluation=second.evaluation, second=texts
        )
    params = {"together": True} if arm == "together" else {}
    search = Choice("decoupled", params)
    return replace(study, searches=(search,), second=replace(second, layers=layers))


def row(arguments: argparse.Namespace, study: Study, arm: str, seed: int) -> dict[str, object]:
    """The answer of an arm, its texts in the order of the command line."""
    assert study.second is not None
    layers = study.second.layers
    folder = arguments.out / f"{arm}-{layers.strip('*.')}-{seed}"
    front = run_study(study, folder)
    values = front.best(front.goal, **study.budget.bounds()).values
    within = [
        t.values
        for t in Results(folder).trials("evaluation")
        if t.values["bits"] <= study.budget.value
    ]
    first, second = ("second_kl", "kl") if arm == "second" else ("kl", "second_kl")
    return {
        "model": Path(arguments.model).name,
        "first_text": Path(arguments.evaluation).name,
        "second_text": Path(arguments.second_evaluation).name,
        "budget": str(study.budget),
        "arm": arm,
        "layers": layers if arm == "decoupled" else "",
        "seed": seed,
        "bits": round(values["bits"], 4),
        "first_kl": f"{values[first]:.5f}",
        "first_stderr": f"{values[f'{first}_stderr']:.5f}",
        "second_kl": f"{values[second]:.5f}",
        "second_stderr": f"{values[f'{second}_stderr']:.5f}",
        "both_kl": f"{values['both_kl']:.5f}",
        "best_first_kl": f"{min(x[first] for x in within):.5f}",
        "best_second_kl": f"{min(x[second] for x in within):.5f}",
        "n_points": len(front.trials),
        "n_trials": len(Results(folder).trials("calibration")),
        "n_judged_tokens": arguments.n_evaluation * arguments.length,
    }


def parse() -> argparse.Namespace:
    """Command line."""
    made = parser(
        __doc__,
        budget="3bits",
        arms="first,second,together,decoupled,decoupled=*.self_attn.*,decoupled=*.mlp.*",
        formats="int2_g32,int3_g32,int4_g32,int5_g32,int8_g32",
        pin="int8_g32",
        n_trials=21,
        n_finalists=12,
        n_sequences=8,
        n_search=4,
        n_evaluation=8,
        length=256,
        seeds="0",
    )
    made.add_argument("--second-calibration", required=True)
    made.add_argument("--second-evaluation", required=True)
    return made.parse_args()


if __name__ == "__main__":
    main()
