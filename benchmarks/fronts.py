"""Allocation quality: KL of ours, the peers' and plain Fisher's allocation over that of uniform.

    python benchmarks/fronts.py MODEL CALIBRATION EVALUATION --out DIRECTORY [--budgets 3.0,3.5]
        [--quantizers rtn,hqq,gptq] [--n-trials 24]

All at equal code bits. One results folder per quantizer; every budget searches in it, so tables and
measurements are shared.
Peers' allocations come from `benchmarks/results/peers/`. Everything is judged by the same
evaluator on the same evaluation blocks. Between two uniform widths, uniform is the geometric
interpolation of their KL at the budget's bits. Appends to `benchmarks/results/fronts.csv`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

from record import FOLDER, Record

from bitfront import Allocation, Budget, Choice, ParetoFront, Study, TextSource, Trial
from bitfront.run import Job, measure_finalists, measured, opened, search_trials
from bitfront.solvers import SOLVERS

MENU = ("int2_g64", "int3_g64", "int4_g64", "int5_g64", "int8_g64")
COLUMNS = (
    *("quantizer", "budget_bits", "allocation", "bits", "kl", "kl_stderr", "over_uniform"),
    *("perplexity", "seconds", "n_trials", "n_tokens"),
)


def main() -> None:
    """Search, judge and record."""
    arguments = parse()
    record = Record("fronts", COLUMNS)
    for quantizer in arguments.quantizers.split(","):
        for bits in map(float, arguments.budgets.split(",")):
            study = study_of(arguments, quantizer, bits)
            start = time.perf_counter()
            with opened(study, arguments.out / quantizer) as job:
                rows = compared(job, bits)
            seconds = time.perf_counter() - start
            for name, trial in rows.items():
                values = trial.values
                record.add(
                    quantizer=quantizer,
                    budget_bits=bits,
                    allocation=name,
                    over_uniform=round(values["kl"] / uniform_kl(rows, bits), 4),
                    seconds=round(seconds, 1) if name == "bitfront" else "",
                    n_trials=arguments.n_trials if name == "bitfront" else "",
                    n_tokens=arguments.n_evaluation * arguments.length,
                    **{k: values[k] for k in ("bits", "kl", "kl_stderr", "perplexity")},
                )


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("calibration")
    parser.add_argument("evaluation")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budgets", default="2.5,3.0,3.5,4.0,4.5")
    parser.add_argument("--quantizers", default="rtn")
    parser.add_argument("--search", default=str(Study.search))
    parser.add_argument("--estimator", default=str(Study.estimator))
    parser.add_argument("--n-trials", type=int, default=24)
    parser.add_argument("--n-search", type=int, default=8)
    parser.add_argument("--n-evaluation", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    return parser.parse_args()


def study_of(arguments: argparse.Namespace, quantizer: str, bits: float) -> Study:
    """The study of one budget; trials of earlier budgets in the folder count as given."""
    path = arguments.out / quantizer / "trials.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    earlier = sum(json.loads(line)["text"] == "calibration" for line in lines)
    return Study(
        model=arguments.model,
        budget=Budget(bits, "bits"),
        calibration=TextSource(arguments.calibration, 16, arguments.length),
        evaluation=TextSource(arguments.evaluation, arguments.n_evaluation, arguments.length),
        formats=MENU,
        quantizer=Choice.parse(quantizer),
        estimator=Choice.parse(arguments.estimator),
        search=Choice.parse(arguments.search),
        n_trials=earlier + arguments.n_trials,
        n_search_sequences=arguments.n_search,
        n_finalists=2,
        tied=False,
    )


def compared(job: Job, bits: float) -> dict[str, Trial]:
    """Evaluation trials: uniforms, the solved table (plain estimator), peers, ours."""
    search_trials(job)
    measure_finalists(job)
    rows = {f"uniform {f}": t for f, t in uniforms(job).items()}
    ours = [t for t in job.results.trials("evaluation") if t.origin != "judged"]
    rows["bitfront"] = ParetoFront(tuple(ours)).best("kl", bits=bits)
    solved = SOLVERS.build("lagrangian").solve(job.problem)
    rows[f"{job.study.estimator.name} solved"] = judged(
        job, job.problem.space.decode(solved.choice)
    )
    for path in sorted((FOLDER / "peers").glob(f"*_{bits}.json")):
        formats = json.loads(path.read_text())["allocation"]
        pinned = {layer.name: f.name for layer, f in job.problem.space.pinned}
        rows[path.stem.rpartition("_")[0]] = judged(job, Allocation(formats | pinned))
    return rows


def uniforms(job: Job) -> dict[str, Trial]:
    """Uniform baselines on the evaluation text by format."""
    found = [t for t in job.results.trials("evaluation") if t.origin == "uniform"]
    layer = job.problem.space.layers[0].name
    return {t.allocation.formats[layer]: t for t in found}


def judged(job: Job, allocation: Allocation) -> Trial:
    """An allocation on the evaluation text, measured once."""
    for trial in job.results.trials("evaluation"):
        if trial.allocation == allocation:
            return trial
    return measured(job, allocation, "evaluation", "judged")


def uniform_kl(rows: Mapping[str, Trial], bits: float) -> float:
    """KL of uniform at a number of code bits, interpolated between the neighbours in log KL."""
    known = sorted(
        (t.values["bits"], math.log(t.values["kl"]))
        for name, t in rows.items()
        if name.startswith("uniform")
    )
    below = max(point for point in known if point[0] <= bits)
    above = min(point for point in known if point[0] >= bits)
    share = (bits - below[0]) / (above[0] - below[0]) if above[0] > below[0] else 0.0
    return math.exp(below[1] + share * (above[1] - below[1]))


if __name__ == "__main__":
    main()
