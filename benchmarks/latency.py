"""How well does a table of latencies predict what a whole packed model takes to decode a token?

    python benchmarks/latency.py MODEL CALIBRATION EVALUATION --out DIRECTORY
        [--batch 1] [--context 512] [--n-points 4]

Times the layers of the model in every format of the menu (`bitfront profile`), searches with that
table as a cost, and decodes with the packed checkpoint of some points of the front, from the
smallest KL within the budget over the fastest to the slowest (`bitfront profile --check`): rows of
kind `model`. Rounds of the table and of the models take turns, each in a process of its own: on a
CPU the head took 56 or 100 ms by what the allocator had seen before. Rows of kind `layer` leave one
shape out of the table and interpolate it from the others. The study is a cheap one (`weight_error`,
few tokens): its allocations matter, not its KL.
Set OMP_NUM_THREADS=1 on a shared machine: one thread is timed by its own clock. Appends to
`benchmarks/results/latency.csv`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from record import Record
from studies import parser, untied_study

from bitfront import Budget, Choice, Study, formats, run_study
from bitfront.costs.latency import Latency, interpolated
from bitfront.results import Results
from bitfront.timings import LayerCall, Timing, Timings

COLUMNS = (
    *("model", "kind", "what", "batch", "context", "device", "dtype", "bits_per_weight"),
    *("predicted_ms", "measured_ms", "spread_ms", "error"),
)


def main() -> None:
    """Time, search, check, record."""
    arguments = parse()
    record = Record("latency", COLUMNS)
    study = study_of(arguments)
    point = {"batch": arguments.batch, "context": arguments.context}
    table = arguments.out / "timings.json"
    measured: dict[int, list[float]] = {}
    for number in range(1, arguments.rounds + 1):
        # In turn: what else the machine does falls on table and models alike.
        command("profile", study.model, *options(study, point), "--rounds", number, "--out", table)
        if number == 1:
            run_study(study, arguments.out)
        checked = ("--check", arguments.out, "--n-points", arguments.n_points)
        for row in command("profile", *checked, "--rounds", 1, "--seconds", 1):
            if "measured_ns" in row:
                measured.setdefault(row["number"], []).append(row["measured_ns"])
    timings = Timings.load(table)
    results = Results(arguments.out)
    (latency,) = Latency(str(table), **point).cost(results.space)
    trials = {trial.number: trial for trial in results.trials("evaluation")}
    known = {"model": Path(arguments.model).name, "device": timings.device, "dtype": timings.dtype}
    for number, samples in measured.items():
        choice = results.space.encode(trials[number].allocation)
        record.add(
            **known,
            **point,
            kind="model",
            what="+".join(sorted({results.space.formats[column].name for column in choice})),
            bits_per_weight=round(trials[number].values["bits_per_weight"], 3),
            **held(latency.total(choice) + latency.outside, Timing(tuple(samples))),
        )
    for key, predicted, timing in held_out(timings, arguments.batch):
        what = f"{key.shape[0]}x{key.shape[1]} {key.format}"
        record.add(**known, kind="layer", what=what, batch=key.batch, **held(predicted, timing))


def options(study: Study, point: dict[str, int]) -> list[object]:
    """What is timed, on the command line."""
    menu = ",".join(study.formats)
    chosen = ["--formats", menu, "--dtype", study.dtype, "--pin", study.pinned]
    return [*chosen, *(word for name, value in point.items() for word in (f"--{name}", value))]


def command(*words: object) -> list[dict]:
    """The lines of a command, each run in a process of its own, as its users run it."""
    made = [sys.executable, "-m", "bitfront.cli", *map(str, words), "--json"]
    done = subprocess.run(made, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def held(predicted: float, timing: Timing) -> dict[str, float]:
    """The columns of a prediction held against a measurement, both in nanoseconds."""
    return {
        "predicted_ms": round(predicted / 1e6, 4),
        "measured_ms": round(timing.ns / 1e6, 4),
        "spread_ms": round(timing.spread / 1e6, 4),
        "error": round(predicted / timing.ns - 1, 4),
    }


def parse() -> argparse.Namespace:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--length", type=int, default=128)
    made.add_argument("--batch", type=int, default=1)
    made.add_argument("--context", type=int, default=512)
    made.add_argument("--n-points", type=int, default=4)
    made.add_argument("--rounds", type=int, default=5)
    return made.parse_args()


def study_of(arguments: argparse.Namespace):
    """A cheap study with a budget that all but the 8-bit format meet."""
    point = {"batch": arguments.batch, "context": arguments.context}
    table = {"table": str(arguments.out / "timings.json")}
    study = untied_study(
        arguments,
        *(2, 1),
        budget=Budget.parse("4bits"),
        estimator=Choice("weight_error"),
        n_search_sequences=1,
        n_trials=12,
    )
    return replace(
        study,
        costs=(Choice("memory"), Choice("latency", table | point)),
        searches=(Choice("sweep"), Choice("nsga3", {"n_warm_start": 2})),
        n_finalists=6,
    )


def held_out(timings: Timings, batch: int):
    """Each layer with its time as the other shapes tell it, within format and batch."""
    calls = {
        key: timing
        for key, timing in timings.entries.items()
        if isinstance(key, LayerCall) and key.batch == batch
    }
    for key, timing in calls.items():
        same = {k.shape: calls[k].ns for k in calls if k.format == key.format and k != key}
        if len(same) > 1:
            format = formats.named(key.format)
            sizes = {shape: format.nbytes(shape) for shape in same}
            yield key, interpolated(same, sizes, format.nbytes(key.shape)), timing


if __name__ == "__main__":
    main()
