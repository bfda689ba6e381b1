"""How well does a table of latencies predict what a whole packed model takes to decode a token?

    python benchmarks/latency.py MODEL CALIBRATION EVALUATION --out DIRECTORY
        [--batch 1] [--context 512] [--n-points 6]

Times the layers of the model in every format of the menu (`bitfront profile`), searches with that
table as a cost, and decodes with the packed checkpoint of some points of the front, from the
smallest KL within the budget over the fastest to the slowest (`bitfront profile --check`): rows of
kind `model`. Rows of kind `layer` leave one shape out of the table and interpolate it from the
others. The study is a cheap one (`weight_error`, few tokens): its allocations matter, not its KL.
Set OMP_NUM_THREADS=1 on a shared machine: one thread is timed by its own clock. Appends to
`benchmarks/results/latency.csv`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from record import Record
from studies import parser, untied_study

from bitfront import Budget, Choice, formats, run_study
from bitfront.costs.latency import interpolated
from bitfront.profile import Request, check, profile
from bitfront.results import Results
from bitfront.timings import LayerCall, Timings

COLUMNS = (
    *("model", "kind", "what", "batch", "context", "device", "dtype", "bits_per_weight"),
    *("predicted_ms", "measured_ms", "spread_ms", "error"),
)


def main() -> None:
    """Time, search, check, record."""
    arguments = parse()
    record = Record("latency", COLUMNS)
    study = study_of(arguments)
    table = arguments.out / "timings.json"
    request = Request(
        study.formats, (arguments.batch,), (arguments.context,), study.model, dtype=study.dtype
    )
    timings = profile(request, table, rounds=arguments.rounds)
    run_study(study, arguments.out)
    rows = check(arguments.out, n_points=arguments.n_points, rounds=arguments.rounds, seconds=1.0)
    known = {"model": Path(arguments.model).name, "batch": arguments.batch}
    space = Results(arguments.out).space
    trials = {trial.number: trial for trial in Results(arguments.out).trials("evaluation")}
    for row in rows:
        trial = trials[row.number]
        mix = sorted({trial.allocation.formats[x.name] for x in space.layers})
        record.add(
            **known,
            kind="model",
            what="+".join(mix),
            context=row.context,
            device=row.device,
            dtype=row.dtype,
            bits_per_weight=round(trial.values["bits_per_weight"], 3),
            predicted_ms=round(row.predicted_ns / 1e6, 4),
            measured_ms=round(row.measured_ns / 1e6, 4),
            spread_ms=round(row.spread_ns / 1e6, 4),
            error=round(row.error, 4),
        )
    for row in held_out(timings):
        record.add(**known, kind="layer", device=timings.device, dtype=timings.dtype, **row)


def parse() -> argparse.Namespace:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--length", type=int, default=256)
    made.add_argument("--batch", type=int, default=1)
    made.add_argument("--context", type=int, default=512)
    made.add_argument("--n-points", type=int, default=6)
    made.add_argument("--rounds", type=int, default=5)
    return made.parse_args()


def study_of(arguments: argparse.Namespace):
    """A cheap study with a budget that all but the 8-bit format meet."""
    point = {"batch": arguments.batch, "context": arguments.context}
    table = {"table": str(arguments.out / "timings.json")}
    study = untied_study(
        arguments,
        *(4, 2),
        budget=Budget.parse("4bits"),
        estimator=Choice("weight_error"),
        n_search_sequences=2,
        n_trials=16,
    )
    return replace(
        study,
        costs=(Choice("memory"), Choice("latency", table | point)),
        searches=(Choice("sweep"), Choice("nsga3", {"n_warm_start": 2})),
        n_finalists=8,
    )


def held_out(timings: Timings):
    """Each shape predicted from the others, within format and batch."""
    calls = {k: t for k, t in timings.entries.items() if isinstance(k, LayerCall)}
    for key, timing in calls.items():
        same = [k for k in calls if (k.format, k.batch) == (key.format, key.batch) and k != key]
        if len(same) < 2:
            continue
        format = formats.named(key.format)
        known = {k.shape: calls[k].ns for k in same}
        sizes = {shape: format.nbytes(shape) for shape in known}
        predicted = interpolated(known, sizes, format.nbytes(key.shape))
        yield {
            "what": f"{key.shape[0]}x{key.shape[1]} {key.format}",
            "predicted_ms": round(predicted / 1e6, 4),
            "measured_ms": round(timing.ns / 1e6, 4),
            "spread_ms": round(timing.spread / 1e6, 4),
            "error": round(predicted / timing.ns - 1, 4),
        }


if __name__ == "__main__":
    main()
