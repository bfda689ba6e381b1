"""Allocation quality: KL of ours, the peers' and plain Fishers' allocation over that of uniform.

    python benchmarks/fronts.py MODEL CALIBRATION EVALUATION --out DIRECTORY [--budgets 3.0,3.5]
        [--quantizers rtn,hqq,gptq] [--n-trials 24] [--seed 0]

All at equal code bits. Plain Fisher is a table solved once, nothing searched: `fisher` is our
estimator of that name (labels drawn from the model, gradients squared per sequence),
`fisher:labels=text` the empirical form of SqueezeLLM.

One results folder per quantizer; every budget searches in it, so tables and measurements are
shared. `search_seconds` is what it takes to answer one budget: what all budgets share
(`shared_seconds`, from the first opening of the folder: quantized weights, references, loss table,
uniform baselines) and what is its own (slopes, screening, search, finalists). Loading, reading
texts and judging other allocations are left out; `seconds` holds all that one opening did.

Peers' allocations come from `benchmarks/results/peers/MODEL/`, one for all seeds; a seed draws
blocks of its own from the texts. Everything is judged by the same evaluator on the same evaluation
blocks. Between two uniform widths, uniform is the geometric interpolation of their KL at the
budget's bits. Appends to `benchmarks/results/fronts.csv`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

from record import FOLDER, Record
from stopwatch import Stages
from studies import MENU, parser, untied_study

from bitfront import Allocation, Budget, Choice, LayerTable, ParetoFront, Study, Trial
from bitfront.job import Job, measured
from bitfront.progress import Event
from bitfront.run import measure_finalists, opened
from bitfront.searching import search_trials
from bitfront.sensitivity import ESTIMATORS
from bitfront.solvers import SOLVERS

COLUMNS = (
    *("quantizer", "budget_bits", "allocation", "bits", "kl", "kl_stderr", "over_uniform"),
    *("perplexity", "seconds", "n_trials", "n_tokens"),
    *("search_seconds", "search_cpu_seconds", "shared_seconds", "shared_cpu_seconds", "n_measured"),
    *("model", "seed"),
)
SHARED = ("quantize", "reference", "estimate", "uniform")
OWN = ("slopes", "screen", "search", "evaluate")
PLAIN = ("fisher", "fisher:labels=text")


def main() -> None:
    """Search, judge and record."""
    arguments = parse()
    record = Record("fronts", COLUMNS)
    for quantizer in arguments.quantizers.split(","):
        for bits in map(float, arguments.budgets.split(",")):
            study, stages = study_of(arguments, quantizer, bits), Stages(stage_of)
            is_new = not (arguments.out / quantizer).exists()
            start = time.perf_counter()
            with opened(study, arguments.out / quantizer, stages) as job:
                rows = compared(job, bits)
            ours = {"seconds": round(time.perf_counter() - start, 1), "n_trials": study.n_trials}
            shared = shared_seconds(arguments.out / f"{quantizer}-shared.json", stages, is_new)
            ours |= timings(stages, shared)
            for name, trial in rows.items():
                values = trial.values
                record.add(
                    model=Path(arguments.model).name,
                    seed=arguments.seed,
                    quantizer=quantizer,
                    budget_bits=bits,
                    allocation=name,
                    over_uniform=round(values["kl"] / uniform_kl(rows, bits), 4),
                    n_tokens=arguments.n_evaluation * arguments.length,
                    **{k: values[k] for k in ("bits", "kl", "kl_stderr", "perplexity")},
                    **(ours if name == "bitfront" else {}),
                )


def parse() -> argparse.Namespace:
    """Command line."""
    made = parser(__doc__)
    made.add_argument("--budgets", default="2.5,3.0,3.5,4.0,4.5")
    made.add_argument("--quantizers", default="rtn")
    made.add_argument("--search", default=",".join(map(str, Study.searches)))
    made.add_argument("--estimator", default=str(Study.estimator))
    made.add_argument("--formats", default=",".join(MENU))
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--n-trials", type=int, default=24)
    made.add_argument("--n-search", type=int, default=8)
    made.add_argument("--n-evaluation", type=int, default=8)
    made.add_argument("--length", type=int, default=256)
    return made.parse_args()


def study_of(arguments: argparse.Namespace, quantizer: str, bits: float) -> Study:
    """The study of one budget; only its own trials and the uniform baselines count as given."""
    return untied_study(
        arguments,
        n_calibration=16,
        n_evaluation=arguments.n_evaluation,
        budget=Budget(bits, "bits"),
        formats=tuple(arguments.formats.split(",")),
        seed=arguments.seed,
        quantizer=Choice.parse(quantizer),
        estimator=Choice.parse(arguments.estimator),
        searches=Choice.parse_list(arguments.search),
        n_trials=arguments.n_trials,
        n_search_sequences=arguments.n_search,
        n_finalists=2,
    )


def stage_of(event: Event) -> str:
    """The stage of an event; measurements of uniform baselines are one of their own."""
    return "uniform" if event.trial and event.trial.origin == "uniform" else event.stage


def spent(stages: Stages, names: tuple[str, ...]) -> dict[str, float]:
    """Wall and CPU seconds of some stages."""
    kept = [stages.records[name] for name in names if name in stages.records]
    return {key: sum(record[key] for record in kept) for key in ("seconds", "cpu_seconds")}


def shared_seconds(path: Path, stages: Stages, is_new: bool) -> dict[str, float]:
    """What the first opening spent for all budgets; empty when no whole run has told it."""
    if is_new:
        path.write_text(json.dumps(spent(stages, SHARED)))
    return json.loads(path.read_text()) if path.exists() else {}


def timings(stages: Stages, shared: dict[str, float]) -> dict[str, object]:
    """The timing columns of our row: what all budgets share, and with it the budget's own."""
    own = spent(stages, OWN)
    columns = {f"shared_{key}": round(value, 1) for key, value in shared.items()}
    columns |= {f"search_{key}": round(value + own[key], 1) for key, value in shared.items()}
    return {"n_measured": stages.records.get("search", {}).get("n_steps", 0), **columns}


def compared(job: Job, bits: float) -> dict[str, Trial]:
    """Evaluation trials: uniforms, the solved table (plain estimator), peers, ours."""
    search_trials(job)
    measure_finalists(job)
    rows = {f"uniform {f}": t for f, t in uniforms(job).items()}
    ours = [t for t in job.results.trials("evaluation") if t.origin != "judged"]
    rows["bitfront"] = ParetoFront(tuple(ours)).best("kl", bits=bits)
    for name in dict.fromkeys((str(job.study.estimator), *PLAIN)):
        problem = job.problem.with_loss(table_of(job, Choice.parse(name)))
        solved = SOLVERS.build("lagrangian").solve(problem)
        rows[f"{name} solved"] = judged(job, problem.space.decode(solved.choice))
    for path in sorted((FOLDER / "peers" / Path(job.study.model).name).glob(f"*_{bits}.json")):
        formats = json.loads(path.read_text())["allocation"]
        pinned = {layer.name: f.name for layer, f in job.problem.space.pinned}
        rows[path.stem.rpartition("_")[0]] = judged(job, Allocation(formats | pinned))
    return rows


def table_of(job: Job, estimator: Choice) -> LayerTable:
    """The table of an estimator on the study's estimation blocks, estimated once."""
    if estimator == job.study.estimator:
        return job.problem.loss
    space, name = job.problem.space, f"plain {estimator}"
    stored = job.results.load_table(name, space)
    if stored is None:
        patched, tokens = job.measurement.patched, job.tokens["estimation"]
        patched.apply(Allocation({}))
        stored = ESTIMATORS.build(estimator.name, estimator.params).estimate(
            patched.model, tokens, space, patched.bank
        )
        job.results.save_table(name, stored)
    return stored


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
