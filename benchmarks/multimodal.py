"""Estimators for each part of a multimodal model against one for all, and uniform formats.

    python tests/multimodal.py DIGITS      (files of samples for the two tiny models of the tests)
    python benchmarks/multimodal.py MODEL CALIBRATION EVALUATION --out DIRECTORY
        [--estimators fisher_directional,by_part] [--budgets 2.5,3] [--seeds 0,1,2]
        [--search sweep] [--n-trials 8]

CALIBRATION and EVALUATION are files of samples, as `docs/multimodal.md` has them. A search in each
of `--budgets` (bits of codes) with each estimator; `uniform_kl` is interpolated between the uniform
baselines at equal bytes, `tau` is Kendall's of the estimator's table and the measured KL, baselines
left out; `vision_bits` and `language_bits` are means of code bits over the weights of the part (the
projector counts as language). Seeds are of the samples and of the search. Appends to
`benchmarks/results/multimodal.csv`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from record import Record
from studies import Answer, agreement, parser, searched_study

from bitfront import Budget, Choice, Study, Trial
from bitfront.formats import named
from bitfront.inputs import load_searched
from bitfront.models.image_text import VISION, parts_of
from bitfront.space import Layer

COLUMNS = (
    *("model", "estimator", "search", "budget", "seed", "bytes", "vision_bits", "language_bits"),
    *("kl", "kl_stderr", "top1_error", "uniform_kl", "over_uniform", "tau", "n_trials"),
    *("n_samples", "seconds"),
)
# One for all, the same on the scale of each part, and what LUQ ranks language models by.
ESTIMATORS = (
    "fisher_directional,by_part,output_error,"
    "by_part:vision=output_error,projector=output_error,language=output_error,"
    "activation_entropy,by_part:language=activation_entropy"
)


def main() -> None:
    """Search with every estimator, in every budget and seed."""
    arguments = parse()
    record = Record("multimodal", COLUMNS)
    for seed in map(int, arguments.seeds.split(",")):
        for estimator in Choice.parse_list(arguments.estimators):
            for budget in arguments.budgets.split(","):
                study = searched_study(
                    arguments,
                    budget=Budget(float(budget), "bits"),
                    estimator=estimator,
                    searches=Choice.parse_list(arguments.search),
                    seed=seed,
                )
                record.add(**row(study, arguments.out))


def row(study: Study, folder: Path) -> dict[str, object]:
    """What a study found."""
    model, space = load_searched(study)
    name, search = Path(study.model).name, ",".join(map(str, study.searches))
    about = f"{name}-{search}-{study.estimator}-{study.budget.value:g}-{study.seed}"
    answer = Answer.of(study, folder / about)
    part_of, values = parts_of(model.module), answer.best.values
    seeing = [layer for layer in space.layers if part_of[layer.name] == VISION]
    others = [layer for layer in space.layers if part_of[layer.name] != VISION]
    return {
        "model": name,
        "estimator": str(study.estimator),
        "search": search,
        "budget": str(study.budget),
        "seed": study.seed,
        "bytes": int(values["bytes"]),
        "vision_bits": mean_bits(answer.best, seeing),
        "language_bits": mean_bits(answer.best, others),
        "kl": f"{values['kl']:.5f}",
        "kl_stderr": f"{values['kl_stderr']:.5f}",
        "top1_error": f"{values['top1_error']:.4f}",
        "uniform_kl": f"{answer.uniform:.5f}" if answer.uniform else "",
        "over_uniform": answer.over_uniform,
        "tau": agreement(answer.results, study),
        "n_trials": len(answer.results.trials("calibration")),
        "n_samples": study.evaluation.n_sequences,
        "seconds": answer.seconds,
    }


def mean_bits(trial: Trial, layers: list[Layer]) -> float:
    """Bits of codes of a weight, mean over some layers."""
    bits = sum(named(trial.allocation.formats[x.name]).code_bits * x.n_weights for x in layers)
    return round(bits / sum(x.n_weights for x in layers), 3)


def parse() -> argparse.Namespace:
    """The command line."""
    return parser(
        __doc__,
        estimators=ESTIMATORS,
        budgets="2.5,3",
        formats="int2_channel,int3_channel,int4_channel,int5_channel,int8_channel",
        pin="int8_g32",
        search="sweep",
        seeds="0,1,2",
        n_trials=8,
        n_sequences=64,
        n_search=32,
        n_evaluation=128,
        length=8,  # has no meaning here; the least there may be
    ).parse_args()


if __name__ == "__main__":
    main()
