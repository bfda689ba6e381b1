"""The times of a run of `gpu_kernels.py` as a table for the cost `latency`, and what it predicts.

Each shape is left out in turn and predicted from the others by what the cost itself does; the error
of every format and batch goes to `benchmarks/results/latencies.csv`.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median

from products import Shape
from record import Record

from bitfront import formats
from bitfront.costs.latency import interpolated
from bitfront.profile import Bench, Request
from bitfront.timings import LayerCall, Timings

COLUMNS = ("device", "format", "batch", "n_shapes", "mean_error", "worst_error", "worst_shape")

Seconds = Mapping[tuple[Shape, str, int], Sequence[float]]
"""Of every round, by shape, format and batch."""


def save(path: Path, seconds: Seconds, device: str) -> None:
    """Write the table of what was measured so far.

    Args:
        path: the file, for `latency:table=FILE`.
        seconds: what was measured.
        device: of torch.
    """
    table_of(seconds, device).save(path)


def judge(path: Path) -> None:
    """Record the error of every shape that is left out of a table in turn."""
    table = Timings.load(path)
    record = Record("latencies", COLUMNS)
    for (format, batch), known in grouped(table).items():
        errors = held_out(format, known)
        if errors:
            worst = max(errors, key=errors.__getitem__)
            record.add(
                device=table.device,
                format=format,
                batch=batch,
                n_shapes=len(errors),
                mean_error=round(mean(errors.values()), 4),
                worst_error=round(errors[worst], 4),
                worst_shape="x".join(map(str, worst)),
            )


def table_of(seconds: Seconds, device: str) -> Timings:
    """The table; a fused product is one layer of all its rows."""
    shapes = tuple((shape.n_rows, shape.n_columns) for shape, _, _ in seconds)
    names = tuple(dict.fromkeys(format for _, format, _ in seconds))
    request = Request(names, shapes=shapes, dtype="bfloat16", device=device)
    table, today = Bench(request).empty, datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    for (shape, format, batch), rounds in seconds.items():
        call = LayerCall((shape.n_rows, shape.n_columns), format, batch)
        for each in rounds:
            table = table.with_sample(call, 1e9 * each, today)
    return table


def grouped(table: Timings) -> dict[tuple[str, int], dict[tuple[int, int], float]]:
    """Nanoseconds of each shape, by format and batch."""
    made: dict[tuple[str, int], dict[tuple[int, int], float]] = {}
    for call, timing in table.entries.items():
        if isinstance(call, LayerCall):
            made.setdefault((call.format, call.batch), {})[call.shape] = median(timing.samples)
    return made


def held_out(format: str, known: Mapping[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """Relative error of each shape, predicted from the others; of those between two in size."""
    sizes = {shape: formats.named(format).nbytes(shape) for shape in known}
    inner = [x for x in known if min(sizes.values()) < sizes[x] < max(sizes.values())]
    errors = {}
    for shape in inner:
        others = {other: ns for other, ns in known.items() if other != shape}
        found = interpolated(others, {other: sizes[other] for other in others}, sizes[shape])
        errors[shape] = abs(found / known[shape] - 1)
    return errors
