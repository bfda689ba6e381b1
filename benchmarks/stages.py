"""Where do the time and the memory of the demo's whole study go?

    python benchmarks/stages.py MODEL CALIBRATION EVALUATION --out DIRECTORY

Arguments of the study are those of `examples/demo.py`. As there, search (with its report), export
and generation are processes of their own; peak memory is that of the process while the stage ran.
`whole` is all three with their starts and imports, its peak that of the largest stage. DIRECTORY
must be new, so that nothing is found done. Appends to `benchmarks/results/stages.csv`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import runpy
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from record import Record
from stopwatch import Stages, timed
from studies import parser

from bitfront import Budget, Study, TextSource
from bitfront.report.page import write_report
from bitfront.report.study import report_data
from bitfront.results import Results
from bitfront.run import export_checkpoint, run_study

DEMO = runpy.run_path(str(Path(__file__).resolve().parents[1] / "examples" / "demo.py"))
MEASURED = ("seconds", "cpu_seconds", "peak_mib", "load_before", "load_after")
COLUMNS = ("model", "stage", "n_steps", *MEASURED, "n_trials", "n_threads")


def main() -> None:
    """Run the study and record every stage."""
    arguments = parse()
    record, records = Record("stages", COLUMNS), {}
    whole: dict[str, dict] = {}
    arguments.out.mkdir(parents=True)
    with timed(whole, "whole"):
        for part in (searched, exported, generated):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                records |= pool.submit(part, arguments).result()
    whole["whole"]["peak_mib"] = max(spent["peak_mib"] for spent in records.values())
    for stage, spent in (records | whole).items():
        record.add(
            model=Path(arguments.model).name,
            stage=stage,
            n_steps=spent.get("n_steps", 1),
            n_trials=arguments.n_trials,
            n_threads=torch.get_num_threads(),
            **{name: round(spent[name], 2) for name in MEASURED},
        )


def parse() -> argparse.Namespace:
    """Command line."""
    made = parser(__doc__)
    made.add_argument("--n-trials", type=int, default=DEMO["N_TRIALS"])
    return made.parse_args()


def study_of(arguments: argparse.Namespace) -> Study:
    """The study that the demo's `bitfront search` runs."""
    size = (DEMO["N_SEQUENCES"], DEMO["SEQUENCE_LENGTH"])
    return Study(
        model=arguments.model,
        budget=Budget.parse(DEMO["BUDGET"]),
        calibration=TextSource(arguments.calibration, *size),
        evaluation=TextSource(arguments.evaluation, *size),
        n_trials=arguments.n_trials,
        n_finalists=DEMO["N_FINALISTS"],
    )


def searched(arguments: argparse.Namespace) -> dict[str, dict]:
    """The stages of `bitfront search`."""
    stages, results = Stages(), arguments.out / "results"
    run_study(study_of(arguments), results, stages)
    with timed(stages.records, "report"):
        write_report(results / "report.html", report_data(results))
    return stages.records


def exported(arguments: argparse.Namespace) -> dict[str, dict]:
    """`bitfront export` of the point that the demo exports."""
    records: dict[str, dict] = {}
    with timed(records, "export"):
        results = Results(arguments.out / "results")
        study = results.study
        point = results.front().best("kl", **study.budget.bounds())
        checkpoint = arguments.out / "checkpoint"
        export_checkpoint(study, point, checkpoint, results=results.directory)
    return records


def generated(arguments: argparse.Namespace) -> dict[str, dict]:
    """Loading the checkpoint and generating, by the demo's own lines."""
    records: dict[str, dict] = {}
    sys.argv[1:] = [str(arguments.out / "checkpoint")]
    with timed(records, "generate"):
        exec(compile(DEMO["GENERATE"], "generate", "exec"), {})
    return records


if __name__ == "__main__":
    main()
